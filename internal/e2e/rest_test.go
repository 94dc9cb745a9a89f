package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
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
	var list struct{ Keys []string } // of a bulk request
	if r.Method == http.MethodPost {
		_ = json.NewDecoder(r.Body).Decode(&list)
	} else {
		list.Keys = []string{strings.TrimPrefix(r.URL.Path, "/keys/")}
	}
	a.mu.Lock()
	step, from := "probe ", probes
	if r.Method != http.MethodGet {
		step, from = "end ", ends
	}
	got := from[a.rand.IntN(len(from))]
	if len(list.Keys) > 1 && got.name == "gone" {
		step = "end one of several, " // which is about none of them
	}
	for _, key := range list.Keys {
		a.given[key] = append(a.given[key], step+got.name)
	}
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(got.status)
	_, _ = io.WriteString(w, got.body)
}

// TestVerified_NeedsAProbeBeforeAndAfter is a property: whatever a downstream answers, a credential is verified only
// if a probe saw it alive before an end and dead after it, and revoked only if the downstream confirmed the end.
func TestVerified_NeedsAProbeBeforeAndAfter(t *testing.T) {
	long(t)
	t.Run("one by one", func(t *testing.T) { verifiedNeedsProbes(t, keyServer) })
	t.Run("in bulk", func(t *testing.T) { verifiedNeedsProbes(t, inBulk(keyServer)) })
}

func verifiedNeedsProbes(t *testing.T, definition string) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	api := &answers{given: make(map[string][]string), rand: rand.New(rand.NewPCG(seed, 0))}
	server := httptest.NewServer(api)
	t.Cleanup(server.Close)
	i := install(t, withDefinition(t, server.URL, definition), func(c *config.Config) {
		c.Policy.Deadline, c.Policy.AttemptTimeout = 4*time.Second, 20*time.Second
	})
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

// grafana serves the tokens of the service account 4, as Grafana does.
type grafana struct {
	mu     sync.Mutex
	names  map[int]string // of the tokens that exist, by id
	issued int
}

func (g *grafana) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.Method {
	case http.MethodPost:
		var token struct{ Name string }
		_ = json.NewDecoder(r.Body).Decode(&token)
		g.issued++
		g.names[g.issued] = token.Name
		_, _ = fmt.Fprintf(w, `{"id":%d,"name":%q,"key":"glsa_%d"}`, g.issued, token.Name, g.issued)
	case http.MethodDelete:
		id, _ := strconv.Atoi(path.Base(r.URL.Path))
		delete(g.names, id)
		_, _ = io.WriteString(w, `{"message":"API key deleted"}`)
	default:
		if path.Base(r.URL.Path) == "search" { // the connector's check
			_, _ = io.WriteString(w, `{"totalCount":1,"serviceAccounts":[]}`)
			return
		}
		tokens := []map[string]any{}
		for id, name := range g.names {
			tokens = append(tokens, map[string]any{"id": id, "name": name})
		}
		_ = json.NewEncoder(w).Encode(tokens)
	}
}

// TestDrill_IssuesByADefinition drills a connector of a definition: a token is issued, ended by the drill's cascade, and
// verified.
func TestDrill_IssuesByADefinition(t *testing.T) {
	long(t)
	g := &grafana{names: make(map[int]string)}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("admin"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := install(t, withConnectors(fmt.Sprintf("connectors:\n  - {name: dashboards, type: grafana, tenants: [leaver-drill], "+
		"url: %q, api_token: %q, drill_account: \"4\"}\n", server.URL, "file:"+token)))
	drilled, err := i.drill("leaver-drill")
	if err != nil || len(drilled.Issued) != 1 || drilled.Verified != 1 {
		t.Fatalf("%+v, %v; want one issued and verified", drilled, err)
	}
	if g.issued != 1 || len(g.names) != 0 {
		t.Errorf("%d tokens were issued, and %v are left", g.issued, g.names)
	}
}
