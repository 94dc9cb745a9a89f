package e2e

import (
	"encoding/json"
	"fmt"
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

// tokenServer ends tokens as GitHub documents it: it accepts a list, and ends the tokens later. The first use of a token
// after the request still succeeds.
type tokenServer struct {
	mu        sync.Mutex
	requests  int            // to end tokens
	requested map[string]int // by token
	used      map[string]int // by token: how often since it was requested
}

// newTokenServer starts a server, and returns the setting of a connector tokens at it.
func newTokenServer(t testing.TB) (*tokenServer, setting) {
	t.Helper()
	s := &tokenServer{requested: make(map[string]int), used: make(map[string]int)}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return s, withConnectors(fmt.Sprintf(
		"connectors:\n  - {name: tokens, type: github-tokens, tenants: [acme], url: %q}\n", server.URL))
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodPost {
		w.WriteHeader(s.end(r))
		return
	}
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), "Bearer ")
	if s.requested[token] > 0 {
		s.used[token]++
	}
	if s.used[token] > 1 {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"message":"Bad credentials"}`))
		return
	}
	_, _ = w.Write([]byte(`{"login":"ada"}`))
}

// end accepts a list of tokens, and returns the status.
func (s *tokenServer) end(r *http.Request) int {
	var list struct{ Credentials []string }
	s.requests++
	if json.NewDecoder(r.Body).Decode(&list) != nil || slices.Contains(list.Credentials, "malformed") {
		return http.StatusUnprocessableEntity
	}
	for _, token := range list.Credentials {
		s.requested[token]++
	}
	return http.StatusAccepted
}

// registerToken registers a token of a principal.
func (i *installation) registerToken(principal, token string) {
	i.t.Helper()
	i.must("POST", "/v1/credentials", i.platform, fmt.Sprintf(
		`{"principalId":%q,"kind":"api_key","connector":"tokens","reference":"a token named %[2]s","secret":%[2]q}`, principal, token))
}

// states counts the states of the tenant's credentials.
func (i *installation) states() map[string]int {
	i.t.Helper()
	states := make(map[string]int)
	for _, item := range i.must("GET", "/v1/tenants/acme/credentials?limit=500", i.operator, "")["items"].([]any) {
		states[item.(map[string]any)["state"].(string)]++
	}
	return states
}

// TestBulk_EndsManyWithOneRequestAndProvesEach checks that each token is requested once although its end takes effect
// later: attempts that find it alive meanwhile only probe.
func TestBulk_EndsManyWithOneRequestAndProvesEach(t *testing.T) {
	long(t)
	server, connector := newTokenServer(t)
	i := install(t, connector)
	ada := i.createUser("ada@example.com")
	const tokens = 120
	for n := range tokens {
		i.registerToken(ada, fmt.Sprintf("ghp_%d", n))
	}
	i.deactivate(ada)
	i.closed(ada)
	if states := i.states(); states["verified"] != tokens {
		t.Errorf("states %v, want %d verified", states, tokens)
	}
	if server.requests != 3 { // of 50, 50 and 20
		t.Errorf("%d requests to end, want 3", server.requests)
	}
	for token, n := range server.requested {
		if n != 1 {
			t.Errorf("%s was requested %d times", token, n)
		}
	}
}

// TestBulk_RefusalOfOneDoesNotFailTheOthers registers a secret that makes the downstream refuse every list with it.
func TestBulk_RefusalOfOneDoesNotFailTheOthers(t *testing.T) {
	long(t)
	server, connector := newTokenServer(t)
	i := install(t, connector, func(c *config.Config) {
		c.Policy.Deadline, c.Policy.AttemptTimeout = 20*time.Second, 20*time.Second
	})
	ada := i.createUser("ada@example.com")
	i.registerToken(ada, "malformed")
	for n := range 7 {
		i.registerToken(ada, fmt.Sprintf("ghp_%d", n))
	}
	i.deactivate(ada)
	i.closed(ada)
	if states := i.states(); states["verified"] != 7 || states["failed"] != 1 {
		t.Errorf("states %v, want 7 verified and 1 failed", states)
	}
	for token, n := range server.requested {
		if n != 1 {
			t.Errorf("%s was requested %d times", token, n)
		}
	}
	failed := i.must("GET", "/v1/tenants/acme/credentials?state=failed", i.operator, "")["items"].([]any)
	for _, item := range failed {
		if reason := item.(map[string]any)["reason"].(string); !strings.Contains(reason, "does not look like a token") {
			t.Errorf("the reason is %q", reason)
		}
	}
}

// TestBulk_SCIMOutcomePerAccount deactivates accounts by SCIM bulk operations at another leaver.
func TestBulk_SCIMOutcomePerAccount(t *testing.T) {
	long(t)
	application := installAPI(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(application.scim), 0o600); err != nil {
		t.Fatal(err)
	}
	i := install(t, withConnectors(fmt.Sprintf(
		"connectors:\n  - {name: application, type: scim-bulk, tenants: [acme], url: %q, token: %q}\n",
		application.url+"/scim/v2", "file:"+token)))
	ada := i.createUser("ada@example.com")
	register := func(account string) {
		i.must("POST", "/v1/credentials", i.platform, fmt.Sprintf(
			`{"principalId":%q,"kind":"session","connector":"application","reference":%q}`, ada, account))
	}
	var accounts []string
	for n := range 3 {
		accounts = append(accounts, application.createUser(fmt.Sprintf("ada-%d@example.com", n)))
		register(accounts[n])
	}
	other := application.createUser("bob@example.com")
	register("00000000-0000-4000-8000-000000000000")
	i.deactivate(ada)
	i.closed(ada)
	if states := i.states(); states["verified"] != 3 || states["absent"] != 1 {
		t.Errorf("states %v, want 3 verified, and the one that does not exist absent", states)
	}
	for _, account := range accounts {
		if application.must("GET", "/scim/v2/Users/"+account, application.scim, "")["active"] != false {
			t.Errorf("the account %s is active", account)
		}
	}
	if application.must("GET", "/scim/v2/Users/"+other, application.scim, "")["active"] != true {
		t.Error("an account of another person was deactivated")
	}
}
