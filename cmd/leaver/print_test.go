package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestPrint_EscapesWhatATerminalObeys checks that names and references, which come from other
// systems, cannot send control characters to the terminal.
func TestPrint_EscapesWhatATerminalObeys(t *testing.T) {
	hostile := "x\x1b]0;pwned\x07\nverified\u009b2K\u202e\ty"
	for _, output := range []string{"", "table", "json"} {
		var out bytes.Buffer
		c := &cli{stdout: &out, output: output}
		if err := c.print(map[string]string{"name": hostile}, []string{"NAME"}, [][]string{{hostile}}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out.String(), "\x1b\x07\u009b\u202e") || strings.Contains(out.String(), "\nverified") {
			t.Errorf("-o %q printed %q", output, out.String())
		}
		if !strings.Contains(out.String(), "verified") || !strings.Contains(out.String(), `\u202e`) {
			t.Errorf("-o %q lost the text: %q", output, out.String())
		}
	}
	if got := escaped("ada – Ada Lovelace 👩‍💻", ""); got != `ada – Ada Lovelace 👩\u200d💻` {
		t.Errorf("escaped a joined emoji as %q", got)
	}
}
