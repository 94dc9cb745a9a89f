package cascade

import (
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/lifecycle"
)

func TestEnded_SignalsByKindAndOutcome(t *testing.T) {
	for name, test := range map[string]struct {
		event ended
		want  string
	}{
		"a cascade that ended everything": {ended{notifies: true, kind: lifecycle.Leaver, outcome: "completed"}, ""},
		"a cascade that failed":           {ended{notifies: true, kind: lifecycle.Leaver, outcome: "failed"}, ""},
		"a cascade that was cancelled":    {ended{notifies: true, kind: lifecycle.Leaver, outcome: "cancelled"}, ""},
		"a mover's cascade":               {ended{notifies: true, kind: lifecycle.Mover, outcome: "completed"}, ""},
		"a client that did not wait":      {ended{notifies: true, kind: lifecycle.Mover, outcome: "completed", async: true}, "asyncresp"},
		"a leaver's that did not wait":    {ended{notifies: true, kind: lifecycle.Leaver, outcome: "completed", async: true}, "asyncresp"},
		"a cascade that closes again":     {ended{kind: lifecycle.Leaver, outcome: "completed", async: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var names []string
			for _, signal := range test.event.signals() {
				names = append(names, signal.Type[strings.LastIndexAny(signal.Type, "/:")+1:])
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("got signals %q, want %q", got, test.want)
			}
		})
	}
}
