package credential_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leaverhq/leaver/internal/credential"
)

// TestState_ReadsTheNameOfOlderHistories checks values and keys of maps, as histories have them.
func TestState_ReadsTheNameOfOlderHistories(t *testing.T) {
	var counts map[credential.State]int
	if err := json.Unmarshal([]byte(`{"survivor": 2, "verified": 1}`), &counts); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[credential.State]int{credential.Failed: 2, credential.Verified: 1}, counts); diff != "" {
		t.Error(diff)
	}
	encoded, err := json.Marshal(credential.Failed)
	if err != nil || string(encoded) != `"failed"` {
		t.Errorf("encoded as %s, %v", encoded, err)
	}
}
