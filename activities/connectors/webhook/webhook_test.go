package webhook

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/internal/inventory"
)

const secret = "whsec_bGVhdmVyLXRlc3RzLXNpZ25pbmctc2VjcmV0"

// platform follows docs/webhook.md.
type platform struct {
	verifier *standardwebhooks.Webhook
	mu       sync.Mutex
	alive    map[string]bool
	ids      []string
}

func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || p.verifier.Verify(body, r.Header) != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var m struct {
		Type string
		Data struct{ Reference string }
	}
	if json.Unmarshal(body, &m) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids = append(p.ids, r.Header.Get("Webhook-Id"))
	if m.Type == "credential.verify" {
		_ = json.NewEncoder(w).Encode(map[string]bool{"alive": p.alive[m.Data.Reference]})
		return
	}
	if !p.alive[m.Data.Reference] {
		_, _ = io.WriteString(w, `{"outcome":"gone"}`)
		return
	}
	p.alive[m.Data.Reference] = false
	w.WriteHeader(http.StatusNoContent)
}

func start(t *testing.T) (*platform, string) {
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{verifier: verifier, alive: make(map[string]bool)}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return p, server.URL
}

func connect(t *testing.T, url string) *Connector {
	t.Helper()
	t.Setenv("TEST_WEBHOOK_SECRET", secret)
	c, err := New(Config{URL: url, Secret: "env:TEST_WEBHOOK_SECRET"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (p *platform) issue(*testing.T) connectors.Target {
	p.mu.Lock()
	defer p.mu.Unlock()
	target := connectors.Target{Item: uuid.New(), Kind: inventory.APIKey, Reference: uuid.NewString(), Key: uuid.NewString()}
	p.alive[target.Reference] = true
	return target
}

func TestContract(t *testing.T) {
	p, url := start(t)
	contract.Run(t, contract.Suite{
		Connector: connect(t, url), Verifies: true, Issue: p.issue,
		Works: func(_ *testing.T, target connectors.Target) bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.alive[target.Reference]
		},
		Down: connect(t, "http://"+contract.Closed(t)), Hanging: connect(t, "http://"+contract.Silent(t)),
	})
}

func TestTheAnswersTable(t *testing.T) {
	contract.RunAnswers(t, []contract.Answer{
		{Name: "204", Status: 204, Outcome: connectors.Done},
		{Name: "200 with an outcome", Status: 200, Body: `{"outcome":"expires"}`, Outcome: connectors.Expires},
		{Name: "200 with gone", Status: 200, Body: `{"outcome":"gone"}`, Outcome: connectors.Gone},
		{Name: "a bare 404, which any proxy says", Status: 404, Permanent: true},
		{Name: "a bare 410", Status: 410, Permanent: true},
		{Name: "202 is not done yet", Status: 202},
		{Name: "200 with an unknown outcome", Status: 200, Body: `{"outcome":"maybe"}`, Permanent: true},
		{Name: "200 with something else", Status: 200, Body: `<html>`, Permanent: true},
		{Name: "401", Status: 401, Permanent: true},
		{Name: "429", Status: 429, Header: http.Header{"Retry-After": {"3"}}, RetryAfter: true},
		{Name: "500", Status: 500},
	}, connectors.Target{Kind: inventory.APIKey, Reference: "r"}, func(t *testing.T, url string) connectors.Connector {
		return connect(t, url)
	})
}

func TestEveryAttemptAtOneEndHasTheSameID(t *testing.T) {
	p, url := start(t)
	connector, target := connect(t, url), p.issue(t)
	for range 2 {
		if _, err := connector.Revoke(t.Context(), target); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.ids) != 2 || p.ids[0] != p.ids[1] {
		t.Errorf("ids %v, want one id twice", p.ids)
	}
}
