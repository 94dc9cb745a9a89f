package webhook

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
)

const secret = "whsec_bGVhdmVyLXRlc3RzLXNpZ25pbmctc2VjcmV0"

// platform implements docs/WEBHOOK.md.
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
	if m.Type == "credential.rotated" || m.Type == "credential.rotate" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if m.Type == "credential.unblock" {
		p.alive[m.Data.Reference] = true
		w.WriteHeader(http.StatusNoContent)
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
	target := connectors.Target{
		Item: uuid.New(), Kind: connectors.APIKey, Reference: uuid.NewString(), Key: uuid.NewString(),
	}
	p.alive[target.Reference] = true
	return target
}

func TestWebhook_Contract(t *testing.T) {
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

func TestWebhook_ClassifiesAnswers(t *testing.T) {
	target := connectors.Target{
		Kind: connectors.APIKey, Reference: "r", Secret: contract.Canary, NewSecret: contract.Canary,
	}
	contract.RunAnswers(t, append(contract.Common(), []contract.Answer{
		{Name: "204", Status: 204, Outcome: connectors.Done},
		{Name: "200 with an outcome", Status: 200, Body: `{"outcome":"expires"}`, Outcome: connectors.Expires},
		{Name: "200 with gone", Status: 200, Body: `{"outcome":"gone"}`, Outcome: connectors.Gone},
		{Name: "a bare 410", Status: 410, Permanent: true},
		{Name: "202 is not done yet", Status: 202},
		{Name: "200 with an unknown outcome", Status: 200, Body: `{"outcome":"maybe"}`, Permanent: true},
		{Name: "200 with HTML", Status: 200, Body: `<html>`, Permanent: true},
	}...), target, func(t *testing.T, url string) connectors.Connector {
		return connect(t, url)
	})
	revoke := func(ctx context.Context, url string) error {
		_, err := connect(t, url).Revoke(ctx, target)
		return err
	}
	contract.RunFaults(
		t, target, func(ctx context.Context, address string) error { return revoke(ctx, "http://"+address) },
	)
	contract.RedirectsLeadNowhere(t, func(url string) error { return revoke(t.Context(), url) })
}

func TestRotation_SendsOneIDPerStep(t *testing.T) {
	p, url := start(t)
	c, target := connect(t, url), p.issue(t)
	target.Rotation, target.NewSecret, target.NewReference = uuid.New(), "new", target.Reference
	for range 2 {
		for _, step := range []func(context.Context, connectors.Target) (connectors.Answer, error){c.Renew, c.Retire} {
			if _, err := step(t.Context(), target); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Publish(t.Context(), connectors.Publication{
			Rotation: target.Rotation, Account: "a", Reference: "a", Secret: "new",
		}); err != nil {
			t.Fatal(err)
		}
	}
	r := target.Rotation.String()
	want := []string{r + "/credential.rotate", r + "/credential.retire", r + "/credential.rotated"}
	if want = append(want, want...); !cmp.Equal(p.ids, want) {
		t.Errorf("ids %v, want the same ids in both rounds: %v", p.ids, want)
	}
}

func TestPublish_RequiresOutcomeDone(t *testing.T) {
	for name, body := range map[string]string{"gone": `{"outcome":"gone"}`, "expires": `{"outcome":"expires"}`} {
		server := httptest.NewServer(http.HandlerFunc(func(
			w http.ResponseWriter, _ *http.Request,
		) {
			_, _ = io.WriteString(w, body)
		}))
		_, err := connect(t, server.URL).Publish(t.Context(), connectors.Publication{Secret: contract.Canary})
		server.Close()
		if !connectors.IsPermanent(err) {
			t.Errorf("%s: %v, want a permanent refusal", name, err)
		}
	}
}

func TestRevoke_RepeatsItsMessageID(t *testing.T) {
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
