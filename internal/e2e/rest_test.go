package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leaverhq/leaver/internal/config"
)

// keyServer is a definition of an API whose answers a test invents.
const keyServer = `name: keyserver
title: A key server
kinds: [api_key]
reference: the key
settings:
  url: {required: true}
operations:
  revoke:
    request: {method: DELETE, url: "{url}/keys/{reference}"}
    answers:
      - {when: status == 204, means: done}
      - {when: status == 404 && body.error == 'no_such_key', means: gone}
      - {when: status == 403, means: permanent, reason: the token lacks the scope keys.write}
  probe:
    request: {url: "{url}/keys/{reference}"}
    answers:
      - {when: status == 200 && body.active == true, means: alive}
      - {when: status == 200 && body.active == false, means: dead}
      - {when: status == 404 && body.error == 'no_such_key', means: dead}
`

// withDefinition adds a connector named keys of a definition named keyserver.
func withDefinition(t testing.TB, address, definition string) setting {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "keyserver.yaml"), []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	return withConnectors(fmt.Sprintf(
		"connector_definitions: %s\nconnectors:\n  - {name: keys, type: keyserver, tenants: [acme], url: %q}\n", dir, address))
}

// answers is an API that answers at random, and remembers each answer by key.
type answers struct {
	mu    sync.Mutex
	given map[string][]string // "probe alive", "end done" …
	rand  *rand.Rand
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	type answer struct {
		name   string
		status int
		body   string
	}
	probes := []answer{
		{"alive", 200, `{"active":true}`},
		{"alive", 200, `{"active":true}`},
		{"dead", 200, `{"active":false}`},
		{"dead", 404, `{"error":"no_such_key"}`},
		{"nothing", 404, ``},
		{"nothing", 200, `{}`},
		{"nothing", 200, `<html>`},
		{"nothing", 500, ``},
	}
	ends := []answer{
		{"done", 204, ``},
		{"done", 204, ``},
		{"gone", 404, `{"error":"no_such_key"}`},
		{"nothing", 404, ``},
		{"nothing", 200, `{"error":"x"}`},
		{"nothing", 503, ``},
		{"refused", 403, `{}`},
	}
	a.mu.Lock()
	step, from := "probe ", probes
	if r.Method == http.MethodDelete {
		step, from = "end ", ends
	}
	got := from[a.rand.IntN(len(from))]
	key := strings.TrimPrefix(r.URL.Path, "/keys/")
	a.given[key] = append(a.given[key], step+got.name)
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(got.status)
	_, _ = io.WriteString(w, got.body)
}

// TestVerified_NeedsAProbeBeforeAndAfter is a property: whatever a downstream answers, a credential is verified only
// if a probe saw it alive before an end and dead after it, and revoked only if the downstream confirmed the end.
func TestVerified_NeedsAProbeBeforeAndAfter(t *testing.T) {
	long(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	api := &answers{given: make(map[string][]string), rand: rand.New(rand.NewPCG(seed, 0))}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	i := install(t, withDefinition(t, server.URL, keyServer), func(c *config.Config) { c.Policy.Deadline = 4 * time.Second })
	ada := i.createUser("ada@example.com")
	const keys = 80
	for n := range keys {
		i.must("POST", "/v1/credentials", i.platform,
			fmt.Sprintf(`{"principalId":%q,"kind":"api_key","connector":"keys","reference":"key-%d"}`, ada, n))
	}
	i.deactivate(ada)
	i.closed(ada)
	items := i.must("GET", "/v1/tenants/acme/credentials?limit=500", i.operator, "")["items"].([]any)
	states := make(map[string]int)
	for _, listed := range items {
		item := listed.(map[string]any)
		state, key := item["state"].(string), item["reference"].(string)
		states[state]++
		given := api.given[key]
		ended := func(s string) bool { return s == "end done" || s == "end gone" }
		first, last := slices.IndexFunc(given, ended), -1
		for n, step := range given {
			if ended(step) {
				last = n
			}
		}
		alive, dead := slices.Index(given, "probe alive"), slices.Index(given[max(last, 0):], "probe dead")
		switch {
		case state == "verified" && (alive < 0 || last < 0 || alive > last || dead < 0):
			t.Errorf("%s is verified after %v", key, given)
		case state == "revoked" && first < 0:
			t.Errorf("%s is revoked after %v", key, given)
		case state == "live" || state == "ending":
			t.Errorf("%s is %s in a closed cascade after %v", key, state, given)
		}
	}
	if len(items) != keys || states["verified"] == 0 || states["failed"] == 0 {
		t.Errorf("%d items, states %v; want each of verified and failed", len(items), states)
	}
}
