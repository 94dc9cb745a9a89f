package evidence

import (
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// update rewrites the export that the command's tests verify: go test ./internal/evidence -run Fixture -update
var update = flag.Bool("update", false, "rewrite the export in cmd/leaver/testdata")

// TestFixture_VerifiesForEver guards the format: an export of today must verify with each later version.
func TestFixture_VerifiesForEver(t *testing.T) {
	dir := filepath.Join("..", "..", "cmd", "leaver", "testdata")
	s := newSigner(1)
	if *update {
		key := fmt.Sprintf("%s %s\n", s.id, base64.StdEncoding.EncodeToString(s.keys()[s.id]))
		for name, content := range map[string][]byte{"evidence.jsonl": exported(t, s, twelve()...), "keys.txt": []byte(key)} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	export, err := os.ReadFile(filepath.Join(dir, "evidence.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if got := faults(t, export, s.keys()); len(got) != 0 {
		t.Errorf("the stored export has the faults %q", got)
	}
}
