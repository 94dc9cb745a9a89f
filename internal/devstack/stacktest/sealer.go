package stacktest

import (
	"testing"

	"github.com/leaverhq/leaver/internal/seal"
)

// NewSealer returns a sealer with a key set of its own.
func NewSealer(t testing.TB) *seal.Sealer {
	t.Helper()
	keyset, err := seal.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(keyset)
	if err != nil {
		t.Fatal(err)
	}
	return sealer
}
