package vault

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
)

func connect(t *testing.T, c Config) *Connector {
	t.Helper()
	t.Setenv("TEST_VAULT_TOKEN", "s.token")
	c.Token = "env:TEST_VAULT_TOKEN"
	connector, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(connector.Close)
	return connector
}

var testTenant = uuid.MustParse("4a3ec2c4-a334-4ead-a709-306d3154f984")

func publication(account string) connectors.Publication {
	return connectors.Publication{
		Tenant: testTenant, Rotation: uuid.New(), Connector: "crm", Kind: connectors.ServiceAccount, Account: account,
		Previous: account, Reference: account + "_lv1", Secret: contract.Canary,
	}
}

// store is the write endpoint of a KV engine, version 2
// (https://openbao.org/api-docs/secret/kv/kv-v2/).
type store map[string][]map[string]any

func (s store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Vault-Token") != "s.token" || r.Method != http.MethodPost {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"errors":["permission denied"]}`))
		return
	}
	var body struct {
		Data map[string]any `json:"data"`
	}
	if json.NewDecoder(r.Body).Decode(&body) != nil || body.Data == nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	path := r.URL.EscapedPath()
	s[path] = append(s[path], body.Data)
	_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"version": len(s[path])}})
}

func TestPublish_WritesAVersionAtTheAccountsPath(t *testing.T) {
	kv := store{}
	server := httptest.NewServer(kv)
	defer server.Close()
	c := connect(t, Config{Address: server.URL, Mount: "kv", Prefix: "leaver/rotated"})
	p := publication("reporting")
	for n, want := range []string{"version 1", "version 2"} { // a repetition adds a version with the same content
		answer, err := c.Publish(t.Context(), p)
		if err != nil || answer.Outcome != connectors.Done || !strings.HasPrefix(answer.Detail, want) ||
			strings.Contains(answer.Detail, contract.Canary) {
			t.Fatalf("publication %d: %+v, %v", n+1, answer, err)
		}
	}
	written := kv["/v1/kv/data/leaver/rotated/"+testTenant.String()+"/crm/reporting"]
	want := map[string]any{
		"reference": "reporting_lv1", "secret": contract.Canary, "previous_reference": "reporting",
		"rotation_id": p.Rotation.String(),
	}
	if len(written) != 2 || !cmp.Equal(written[1], want) {
		t.Errorf("written %v; want %v", kv, want)
	}
}

func TestPublish_EscapesAccountNames(t *testing.T) {
	kv := store{}
	server := httptest.NewServer(kv)
	defer server.Close()
	c := connect(t, Config{Address: server.URL})
	for _, account := range []string{"../../sys/policy", "..", "a/b?version=1#x"} {
		if _, err := c.Publish(t.Context(), publication(account)); err != nil {
			t.Errorf("%s: %v", account, err)
		}
	}
	for path := range kv {
		if !strings.HasPrefix(path, "/v1/secret/data/"+testTenant.String()+"/crm/") || strings.Count(path, "/") != 6 {
			t.Errorf("a secret was written to %s", path)
		}
	}
}

func TestVault_ClassifiesAnswers(t *testing.T) {
	target := connectors.Target{Secret: contract.Canary}
	publish := func(ctx context.Context, url string) (connectors.Answer, error) {
		return connect(t, Config{Address: url}).Publish(ctx, publication("a"))
	}
	contract.RunFaults(t, target, func(ctx context.Context, address string) error {
		_, err := publish(ctx, "http://"+address)
		return err
	})
	contract.RedirectsLeadNowhere(t, func(url string) error {
		_, err := publish(t.Context(), url)
		return err
	})
	for _, a := range append(contract.Common(), []contract.Answer{
		{Name: "200 with a version", Status: 200, Body: `{"data":{"version":3}}`, Outcome: connectors.Done},
		{Name: "200 of a KV engine of version 1", Status: 200, Body: `{}`, Permanent: true},
		{Name: "204 of a KV engine of version 1", Status: 204, Permanent: true},
		{Name: "472: a disaster recovery standby", Status: 472},
		{Name: "473: a performance standby", Status: 473},
		{Name: "503: sealed", Status: 503},
	}...) {
		t.Run(a.Name, func(t *testing.T) {
			a.Check(t, target, func(url string) (connectors.Answer, error) { return publish(t.Context(), url) })
		})
	}
}
