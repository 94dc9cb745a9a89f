package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// platform is an agent platform behind the webhook connector. It implements the
// contract of docs/WEBHOOK.md; tests can intercept its requests.
type platform struct {
	url string

	mu    sync.Mutex
	alive map[string]bool // by reference; an unknown reference is absent
	calls map[string]int  // by "type reference"
	// secrets are the new secrets of credential.rotate, and published those of credential.rotated,
	// by reference.
	secrets, published map[string][]string
	changes            []change // of entitlements, as notified
	// intercept may write the response instead of the platform; it reports whether it did.
	intercept func(w http.ResponseWriter, kind, reference string) bool
}

// webhookSecret is a signing secret in the format of Standard Webhooks.
const webhookSecret = "whsec_bGVhdmVyLXRlc3RzLXNpZ25pbmctc2VjcmV0"

func newPlatform(t testing.TB) *platform {
	t.Helper()
	t.Setenv("TEST_WEBHOOK_SECRET", webhookSecret)
	verifier, err := standardwebhooks.NewWebhook(webhookSecret)
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{
		alive: make(map[string]bool), calls: make(map[string]int),
		secrets: make(map[string][]string), published: make(map[string][]string),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || verifier.Verify(body, r.Header) != nil {
			http.Error(w, "bad signature", http.StatusUnauthorized)
			return
		}
		p.serve(w, body)
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *platform) serve(w http.ResponseWriter, body []byte) {
	var m struct {
		Type string `json:"type"`
		Data struct {
			Reference string `json:"reference"`
			Secret    string `json:"secret"`
			NewSecret string `json:"newSecret"`

			Entitlements []change `json:"entitlements"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		http.Error(w, "bad body", http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	p.calls[m.Type+" "+m.Data.Reference]++
	for _, c := range m.Data.Entitlements {
		c.kind = m.Type
		p.changes = append(p.changes, c)
	}
	intercept := p.intercept
	p.mu.Unlock()
	if m.Data.Reference == "" {
		w.WriteHeader(http.StatusNoContent) // a notification
		return
	}
	if m.Type == "credential.rotated" {
		p.mu.Lock()
		p.published[m.Data.Reference] = append(p.published[m.Data.Reference], m.Data.NewSecret)
		p.mu.Unlock()
	}
	if intercept != nil && intercept(w, m.Type, m.Data.Reference) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	alive, known := p.alive[m.Data.Reference]
	if m.Type == "credential.verify" && m.Data.Secret == "new" {
		alive, known = p.alive[m.Data.Reference+"/new"]
	}
	switch {
	case m.Type == "credential.block":
		w.WriteHeader(http.StatusNotImplemented)
	case m.Type == "credential.rotated":
		w.WriteHeader(http.StatusNoContent)
	case m.Type == "credential.verify":
		_, _ = fmt.Fprintf(w, `{"alive":%t}`, known && alive)
	case !known:
		_, _ = io.WriteString(w, `{"outcome":"gone"}`)
	case m.Type == "credential.rotate":
		p.secrets[m.Data.Reference] = append(p.secrets[m.Data.Reference], m.Data.NewSecret)
		p.alive[m.Data.Reference+"/new"] = true
		_, _ = io.WriteString(w, `{"outcome":"done"}`)
	default: // revoke, retire or cancel
		p.alive[m.Data.Reference] = false
		_, _ = io.WriteString(w, `{"outcome":"done"}`)
	}
}

// change is a notified change of a principal's entitlements.
type change struct {
	kind      string
	Principal string   `json:"principal"`
	Gained    []string `json:"gained"`
	Lost      []string `json:"lost"`
}

// notified reports whether the platform received such a notification.
func (p *platform) notified(kind, principal, gained, lost string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.changes, func(c change) bool {
		return c.kind == kind && c.Principal == principal && strings.Join(c.Gained, " ") == gained &&
			strings.Join(c.Lost, " ") == lost
	})
}

// connector returns the YAML of the platform's connector in leaver.yaml.
func (p *platform) connector() string {
	return fmt.Sprintf(
		"connectors:\n  - {name: platform, type: webhook, tenants: [acme], url: %q, secret: \"env:TEST_WEBHOOK_SECRET\"}\n",
		p.url,
	)
}

func (p *platform) issue(reference string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alive[reference] = true
}

func (p *platform) isAlive(reference string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.alive[reference]
}

func (p *platform) called(kind, reference string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[kind+" "+reference]
}

func (p *platform) interceptWith(f func(w http.ResponseWriter, kind, reference string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intercept = f
}

// hold issues a credential and registers it for the principal.
func (i *installation) hold(p *platform, principal, agent, reference string) string {
	i.t.Helper()
	p.issue(reference)
	body := fmt.Sprintf(`{"principalId":%q,"kind":"api_key","connector":"platform","reference":%q}`, principal, reference)
	if agent != "" {
		body = fmt.Sprintf(`{"principalId":%q,"agentId":%q,"kind":"api_key","connector":"platform","reference":%q}`,
			principal, agent, reference)
	}
	return i.must("POST", "/v1/credentials", i.platform, body)["id"].(string)
}

// state returns the state of an item.
func (i *installation) state(id string) string {
	i.t.Helper()
	return i.must("GET", "/v1/credentials/"+id, i.platform, "")["state"].(string)
}
