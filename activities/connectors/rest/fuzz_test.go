package rest_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/rest"
)

// FuzzParse checks that no text makes the parser panic, and that each error has a place.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("definitions/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(keys))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := rest.Parse("f.yaml", raw)
		var mistake *rest.Error
		if err != nil && (!errors.As(err, &mistake) || mistake.Line < 1 || mistake.Column < 1 || mistake.File != "f.yaml") {
			t.Errorf("%v has no place", err)
		}
		if err == nil && len(d.Operations()) == 0 {
			t.Error("a definition without operations was accepted")
		}
	})
}

// FuzzReference checks that a reference that a connector accepts has one spelling.
func FuzzReference(f *testing.F) {
	for _, reference := range []string{"p/k", "a%2Fb/c", "p/", "../k", "p/%zz", "p%20/k", "/", "p/k/x"} {
		f.Add(reference)
	}
	f.Setenv("REST_TEST_SECRET", "admin-secret")
	c := connect(f, parse(f, keys), map[string]string{"url": "https://api.example.com", "token": adminSecret})
	f.Fuzz(func(t *testing.T, reference string) {
		canonical, err := c.Accepts(connectors.Registration{Kind: connectors.APIKey, Reference: reference})
		if err != nil {
			return
		}
		if again, err := c.Accepts(connectors.Registration{Kind: connectors.APIKey, Reference: canonical}); err != nil || again != canonical {
			t.Errorf("%q is %q, and that is %q, %v", reference, canonical, again, err)
		}
	})
}
