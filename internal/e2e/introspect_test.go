package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/devstack/openid"
	"github.com/leaverhq/leaver/internal/extauthz"
)

// introspect asks leaver whether a token is active, with the credentials of the provider's client.
func (i *installation) introspect(gateway, secret, token string) (status int, answer map[string]any) {
	i.t.Helper()
	req, err := http.NewRequestWithContext(i.t.Context(), http.MethodPost, i.url+extauthz.IntrospectionPath,
		strings.NewReader(url.Values{"token": {token}}.Encode()))
	if err != nil {
		i.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("X-Leaver-Token", gateway)
	req.SetBasicAuth(openid.ClientID, secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		i.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	_ = json.NewDecoder(resp.Body).Decode(&answer)
	return resp.StatusCode, answer
}

// TestIntrospection_RequiresIssuersAnswerAndAccess asks about tokens of a real OpenID provider.
func TestIntrospection_RequiresIssuersAnswerAndAccess(t *testing.T) {
	provider, err := openid.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(provider.Close)
	i := installAPI(t)
	i.must("POST", "/v1/tenants/acme/issuers", i.operator, fmt.Sprintf(
		`{"issuer":%q,"audience":%q,"jwksUrl":%q,"introspectionUrl":%q,"uses":["access"]}`,
		provider.Issuer, openid.ClientID, provider.Issuer+"/keys", provider.IntrospectionURL()))
	gateway := i.gateway(provider.Issuer)
	ada := i.createUser("ada@example.com")
	i.clientOf("writer", ada, openid.ClientID, provider.Issuer)
	grant, err := provider.Authorize(t.Context(), ada)
	if err != nil {
		t.Fatal(err)
	}
	status, answer := i.introspect(gateway, provider.ClientSecret, grant.AccessToken)
	if status != http.StatusOK || answer["active"] != true || answer["sub"] != ada {
		t.Fatalf("the token of an active user: %d %v, want the issuer's answer", status, answer)
	}
	if _, answer := i.introspect(gateway, provider.ClientSecret, "unknown"); answer["active"] != false {
		t.Errorf("an unknown token: %v, want inactive", answer)
	}
	i.deactivate(ada)
	if active, err := provider.Active(t.Context(), grant.AccessToken); err != nil || !active {
		t.Fatalf("the provider alone: %t, %v; want active", active, err)
	}
	if _, answer := i.introspect(gateway, provider.ClientSecret, grant.AccessToken); len(answer) != 1 || answer["active"] != false {
		t.Errorf("the token of a user who left: %v, want inactive and nothing else", answer)
	}
	for name, row := range map[string]struct {
		gateway, secret string
		want            int
	}{
		"no token of leaver":                 {"", provider.ClientSecret, http.StatusUnauthorized},
		"a SCIM token":                       {i.scim, provider.ClientSecret, http.StatusUnauthorized},
		"a gateway without an issuer":        {i.platform, provider.ClientSecret, http.StatusConflict},
		"wrong credentials for the provider": {gateway, "wrong", http.StatusUnauthorized},
	} {
		if status, _ := i.introspect(row.gateway, row.secret, grant.AccessToken); status != row.want {
			t.Errorf("%s answered %d, want %d", name, status, row.want)
		}
	}
	provider.Close()
	if status, _ := i.introspect(gateway, provider.ClientSecret, grant.AccessToken); status != http.StatusBadGateway {
		t.Errorf("a provider that is down answered %d, want 502", status)
	}
}

// TestIntrospection_RefusesClaimsOfAnotherIssuer asks an issuer that knows tokens of others, too
// (RFC 7662 section 2.2: iss is optional).
func TestIntrospection_RefusesClaimsOfAnotherIssuer(t *testing.T) {
	i := installAPI(t)
	ada := i.createUser("ada@example.com")
	i.clientOf("writer", ada, "client-1", "https://issuer.example")
	for said, want := range map[string]bool{``: true, `"iss":"https://issuer.example",`: true, `"iss":"https://other.example",`: false} {
		issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprintf(w, `{%s"active":true,"sub":%q,"client_id":"client-1"}`, said, ada)
		}))
		body := i.must("POST", "/v1/tenants/acme/issuers", i.operator, fmt.Sprintf(
			`{"issuer":"https://issuer.example","audience":"gateway","jwksUrl":%q,"introspectionUrl":%q,"uses":["access"]}`,
			issuer.URL, issuer.URL))
		if _, answer := i.introspect(i.gateway("https://issuer.example"), "secret", "token"); answer["active"] != want {
			t.Errorf("an answer with %q: %v, want active %t", said, answer, want)
		}
		i.must("DELETE", "/v1/tenants/acme/issuers/"+body["id"].(string), i.operator, "")
		issuer.Close()
	}
}
