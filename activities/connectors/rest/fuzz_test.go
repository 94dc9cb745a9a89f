package rest_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
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

// FuzzTemplate checks that whatever a template and a reference are, the parser reports the mistake, or the request is
// sent to the path of the definition with the template's text in its query.
func FuzzTemplate(f *testing.F) {
	for _, template := range []string{"{key}", "{{{key}}}", "a{key:soql}b", "{key:int}", "{", "}", "{project}/../{key}", "é\n{token}", "{key:sql}"} {
		f.Add(template, "p/k'")
	}
	f.Setenv("REST_TEST_SECRET", "admin-secret")
	sent := make(chan *http.Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent <- r
		w.WriteHeader(http.StatusNoContent)
	}))
	f.Cleanup(server.Close)
	f.Fuzz(func(t *testing.T, template, reference string) {
		quoted, err := json.Marshal(template)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(keys, `keys/{key}"}
    answers:
      - {when: status == 204`, `keys/{key}", query: {q: `+string(quoted)+`}}
    answers:
      - {when: status == 204`, 1)
		d, err := rest.Parse("f.yaml", []byte(text))
		var mistake *rest.Error
		if err != nil {
			if !errors.As(err, &mistake) || mistake.Line < 1 {
				t.Errorf("%v has no place", err)
			}
			return
		}
		c := connect(t, d, map[string]string{"url": server.URL, "token": adminSecret})
		if _, err := c.Accepts(connectors.Registration{Kind: connectors.APIKey, Reference: reference}); err != nil {
			return
		}
		if _, err := c.Revoke(t.Context(), connectors.Target{Kind: connectors.APIKey, Reference: reference}); err != nil {
			select { // a request that was sent although it failed is not the next one's
			case <-sent:
			default:
			}
			return
		}
		r := <-sent
		segments := strings.Split(r.URL.EscapedPath(), "/")
		if len(segments) != 5 || segments[1] != "projects" || segments[3] != "keys" || len(r.URL.Query()) != 1 {
			t.Errorf("%q with %q was sent as %s", template, reference, r.RequestURI)
		}
	})
}
