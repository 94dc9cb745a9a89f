package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/rest"
	"github.com/leaverhq/leaver/internal/registry"
)

// rotating is a definition of a server whose accounts have several keys.
const rotating = `name: keyring
title: A server of keys
kinds: [api_key]
reference: the account and the key
parts: [account, key]
settings:
  url: {required: true}
operations:
  revoke:
    request: {method: DELETE, url: "{url}/accounts/{account}/keys/{key}"}
    answers:
      - {when: status == 204, means: done}
      - {when: status == 404 && body.error == 'no_such_key', means: gone}
  possess:
    request: {url: "{url}/self", headers: {X-Key: "{secret}"}}
    answers:
      - {when: status == 200 && body.account == account && body.key == key, means: alive}
      - {when: status == 401, means: dead}
  renew:
    request: {method: POST, url: "{url}/accounts/{account}/keys", json: {name: "{rotation}"}}
    answers: [{when: status == 201, means: done}]
    renewed: {reference: "[account, body.key]", secret: body.secret}
  probe:
    request: {url: "{url}/accounts/{account}/keys/{key}"}
    answers:
      - {when: status == 200, means: alive}
      - {when: status == 404 && body.error == 'no_such_key', means: dead}
`

// keyring is the server. The secret of a key is its name after a prefix.
type keyring struct {
	mu    sync.Mutex
	alive map[string]bool // by account/key
	made  int
}

// secretOf returns the secret of a key.
func secretOf(key string) string { return "secret-of-" + key }

func (k *keyring) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	answer := func(status int, body any) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}
	account, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/accounts/"), "/keys")
	name := account + key
	switch {
	case r.URL.Path == "/self":
		for name := range k.alive {
			if account, key, _ := strings.Cut(name, "/"); r.Header.Get("X-Key") == secretOf(key) && k.alive[name] {
				answer(http.StatusOK, map[string]string{"account": account, "key": key})
				return
			}
		}
		answer(http.StatusUnauthorized, map[string]string{"error": "no_such_key"})
	case r.Method == http.MethodPost:
		k.made++
		key := fmt.Sprintf("made-%d", k.made)
		k.alive[account+"/"+key] = true
		answer(http.StatusCreated, map[string]string{"key": key, "secret": secretOf(key)})
	case !k.alive[name]:
		answer(http.StatusNotFound, map[string]string{"error": "no_such_key"})
	case r.Method == http.MethodDelete:
		delete(k.alive, name)
		w.WriteHeader(http.StatusNoContent)
	default:
		answer(http.StatusOK, map[string]string{"key": key})
	}
}

// handing is a connector of a definition that publishes new keys to the test.
type handing struct {
	*rest.Connector

	mu        sync.Mutex
	published []connectors.Publication
}

func (h *handing) Publish(_ context.Context, p connectors.Publication) (connectors.Answer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published = append(h.published, p)
	return connectors.Answer{Outcome: connectors.Done}, nil
}

// TestRotation_FollowsADefinition rotates a key that three principals have registered: the leaver, one who has its
// secret, and one who only knows its name.
func TestRotation_FollowsADefinition(t *testing.T) {
	long(t)
	i := installAPI(t)
	keys := &keyring{alive: map[string]bool{"crm/k1": true, "crm/other": true}}
	server := httptest.NewServer(keys)
	t.Cleanup(server.Close)
	definition, err := rest.Parse("keyring.yaml", []byte(rotating))
	if err != nil {
		t.Fatal(err)
	}
	connector, err := rest.New(definition, map[string]string{"url": server.URL})
	if err != nil {
		t.Fatal(err)
	}
	h := &handing{Connector: connector}
	i.app.Connectors["keyring"] = registry.Entry{Connector: h, Type: "keyring", Tenants: []string{"acme"}}
	i.work()
	hold := func(user, secret string) string {
		return i.must("POST", "/v1/credentials", i.platform, fmt.Sprintf(
			`{"principalId":%q,"kind":"api_key","connector":"keyring","reference":"crm/k1","secret":%q}`, user, secret))["id"].(string)
	}
	ada, bob, eve := i.createUser("ada@example.com"), i.createUser("bob@example.com"), i.createUser("eve@example.com")
	hers, his, guessed := hold(ada, secretOf("k1")), hold(bob, secretOf("k1")), hold(eve, "guessed")
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || i.state(hers) != "verified" || i.state(his) != "live" {
		t.Fatalf("cascade %+v, hers %s, his %s; want completed, verified, live", c, i.state(hers), i.state(his))
	}
	item := i.opened(his)
	if item.Reference != "crm/made-1" || item.Secret.Reveal() != secretOf("made-1") {
		t.Errorf("his key is %q; want the new one with its secret", item.Reference)
	}
	if still := i.opened(guessed); still.Secret.Reveal() != "guessed" {
		t.Errorf("who only knew the name has been given the new secret")
	}
	if keys.alive["crm/k1"] || !keys.alive["crm/made-1"] || !keys.alive["crm/other"] || len(keys.alive) != 2 {
		t.Errorf("the server has the keys %v; want made-1 and other", keys.alive)
	}
	if last := h.published[len(h.published)-1]; last.Secret != item.Secret || len(last.Holders) != 1 {
		t.Errorf("published %s for %v; want the new key for the one holder", last.Reference, last.Holders)
	}
}
