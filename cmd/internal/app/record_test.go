package app

import (
	"encoding/base64"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/leaverhq/leaver/internal/config"
)

// record writes the histories that workflows/replay_test.go replays. Record
// them from a commit that is deployed, never from a change under test: what is
// already running is what a change must not break.
var record = flag.Bool("record", false, "record the histories that the replay test replays")

func TestRecordHistories(t *testing.T) {
	if !*record {
		t.Skip("records only with -record")
	}
	testdata := filepath.Join("..", "..", "..", "workflows", "testdata")
	keyset, err := os.ReadFile(filepath.Join(testdata, "keyset.json"))
	if err != nil {
		t.Fatal(err)
	}
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()), func(c *config.Config) {
		c.Seal.Keyset = base64.StdEncoding.EncodeToString(keyset)
	})
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	i.createAgent("agent", ada)
	for _, reference := range []string{"a", "b", "c"} {
		i.hold(p, ada, "", reference)
		i.hold(p, bob, "", "bob-"+reference)
	}
	i.deactivate(ada)
	completed := i.closed(ada)
	p.interceptWith(func(w http.ResponseWriter, kind, reference string) bool {
		if kind == "credential.revoke" && reference == "bob-b" {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	i.deactivate(bob)
	failed := i.closed(bob)
	p.interceptWith(nil)
	path := "/v1/tenants/acme/cascades/" + failed.ID.String()
	rerun := i.must("POST", path+"/rerun", i.operator, `{"reason":"recording"}`)["runId"].(string)
	i.must("GET", path+"?wait=60s", i.operator, "")
	for name, run := range map[string][2]string{
		"completed": {completed.WorkflowID, *completed.RunID}, "survivors": {failed.WorkflowID, *failed.RunID}, "rerun": {failed.WorkflowID, rerun},
	} {
		history := &historypb.History{}
		events := i.app.temporal.GetWorkflowHistory(t.Context(), run[0], run[1], true, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			event, err := events.Next()
			if err != nil {
				t.Fatal(err)
			}
			history.Events = append(history.Events, event)
		}
		encoded, err := protojson.MarshalOptions{Multiline: true, Indent: " "}.Marshal(history)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(testdata, "leaver-"+name+".json"), encoded, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
