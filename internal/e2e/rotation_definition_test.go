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
	"time"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/rest"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
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
	// refuses reports whether a key that was made does not work, although the server lists it.
	refuses func(key string) bool
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
	account, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/accounts/"), "/")
	name := strings.Replace(strings.TrimPrefix(r.URL.Path, "/accounts/"), "/keys/", "/", 1)
	switch {
	case r.URL.Path == "/self" && r.Header.Get("X-Key") == "strange":
		answer(http.StatusInternalServerError, map[string]string{})
	case r.URL.Path == "/self":
		for name := range k.alive {
			account, key, _ := strings.Cut(name, "/")
			if r.Header.Get("X-Key") == secretOf(key) && k.alive[name] && (k.refuses == nil || !k.refuses(key)) {
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
		answer(http.StatusOK, map[string]string{"key": name})
	}
}

// publishingConnector is a connector of a definition that publishes new keys to the test.
type publishingConnector struct {
	*rest.Connector

	mu        sync.Mutex
	published []connectors.Publication
}

func (h *publishingConnector) Publish(_ context.Context, p connectors.Publication) (connectors.Answer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published = append(h.published, p)
	return connectors.Answer{Outcome: connectors.Done}, nil
}

// newKeyring starts an installation with the connector keyring, whose attempts are repeated at once.
func newKeyring(t *testing.T) (*installation, *keyring, *publishingConnector) {
	t.Helper()
	i := installAPI(t, func(c *config.Config) {
		c.Policy.InitialInterval, c.Policy.MaximumInterval = 20*time.Millisecond, 100*time.Millisecond
	})
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
	h := &publishingConnector{Connector: connector}
	i.app.Connectors["keyring"] = registry.Entry{Connector: h, Type: "keyring", Tenants: []string{"acme"}}
	i.work()
	return i, keys, h
}

// holdKey registers the key crm/k1 for a principal.
func (i *installation) holdKey(principal, secret string) string {
	return i.must("POST", "/v1/credentials", i.platform, fmt.Sprintf(
		`{"principalId":%q,"kind":"api_key","connector":"keyring","reference":"crm/k1","secret":%q}`, principal, secret))["id"].(string)
}

// TestRotation_ByDefinitionSparesProvenHolders rotates a key that four principals have registered: the leaver, one who has its
// secret, one who only knows its name, and one whose secret the server never answers about. The new key works only at
// the third try, and is published then.
func TestRotation_ByDefinitionSparesProvenHolders(t *testing.T) {
	long(t)
	i, keys, h := newKeyring(t)
	tries := 0
	keys.refuses = func(key string) bool {
		if !strings.HasPrefix(key, "made-") {
			return false
		}
		tries++
		return tries <= 2
	}
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	hers, his := i.holdKey(ada, secretOf("k1")), i.holdKey(bob, secretOf("k1"))
	guessed := i.holdKey(i.createUser("eve@example.com"), "guessed")
	strange := i.holdKey(i.createUser("mallory@example.com"), "strange")
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || i.state(hers) != "verified" || i.state(his) != "live" {
		t.Fatalf("cascade %s, hers %s (%s), his %s; want completed, verified, live", c.Outcome, i.state(hers), i.opened(hers).Reason, i.state(his))
	}
	item := i.opened(his)
	if item.Reference != "crm/made-1" || item.Secret.Reveal() != secretOf("made-1") {
		t.Errorf("his key is %q; want the new one with its secret", item.Reference)
	}
	for id, secret := range map[string]string{guessed: "guessed", strange: "strange"} {
		if still := i.opened(id); still.Secret.Reveal() != secret || !strings.Contains(still.Reason, "did not prove") {
			t.Errorf("%s: the reason is %q; want the old secret, and that it is not proven", secret, still.Reason)
		}
	}
	keys.mu.Lock()
	defer keys.mu.Unlock()
	if keys.alive["crm/k1"] || !keys.alive["crm/made-1"] || !keys.alive["crm/other"] || len(keys.alive) != 2 {
		t.Errorf("the server has the keys %v; want made-1 and other", keys.alive)
	}
	if len(h.published) != 1 || h.published[0].Secret != item.Secret || len(h.published[0].Holders) != 1 || tries != 3 {
		t.Errorf("published %d times after %d tries of the new key; want once after 3, for one holder", len(h.published), tries)
	}
}

// TestRotation_ReplacesANewKeyThatStaysDead has a server whose first new key never works.
func TestRotation_ReplacesANewKeyThatStaysDead(t *testing.T) {
	long(t)
	i, keys, _ := newKeyring(t)
	keys.refuses = func(key string) bool { return key == "made-1" }
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	hers, his := i.holdKey(ada, secretOf("k1")), i.holdKey(bob, secretOf("k1"))
	i.deactivate(ada)
	owner := i.connect()
	stacktest.Eventually(t, 10*time.Second, "the rotation", func() bool {
		tag, err := owner.Exec(t.Context(), `update rotations set created_at = created_at - interval '11 minutes'
			where new_reference = 'crm/made-1'`)
		return err == nil && tag.RowsAffected() == 1
	})
	if c := i.closed(ada); c.Outcome != "completed" || i.state(hers) != "verified" {
		t.Fatalf("cascade %+v, hers %s; want completed, verified", c, i.state(hers))
	}
	if item := i.opened(his); item.Reference != "crm/made-2" {
		t.Errorf("his key is %q; want the second new one", item.Reference)
	}
	keys.mu.Lock()
	defer keys.mu.Unlock()
	if keys.alive["crm/k1"] || keys.alive["crm/made-1"] || !keys.alive["crm/made-2"] {
		t.Errorf("the server has the keys %v; want made-2 and other", keys.alive)
	}
}
