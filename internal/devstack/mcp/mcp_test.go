package mcp_test

import (
	"testing"

	"github.com/leaverhq/leaver/internal/devstack/mcp"
	"github.com/leaverhq/leaver/internal/devstack/openid"
)

// TestRedeem_AcceptsAGrantForItselfOnce follows the checks of the grant's draft and of MCP's Enterprise-Managed
// Authorization.
func TestRedeem_AcceptsAGrantForItselfOnce(t *testing.T) {
	idp, err := openid.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer idp.Close()
	server, err := mcp.Start(t.Context(), idp)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	person, err := idp.Authorize(t.Context(), "ada")
	if err != nil {
		t.Fatal(err)
	}
	grant := func(audience, resource string) string {
		token, err := idp.Exchange(t.Context(), person.IDToken, audience, resource, "tools")
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	once := grant(server.Issuer, server.URL())
	if _, err := server.Redeem(t.Context(), once); err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"a used grant": once, "for another server": grant("https://other.example.com", server.URL()),
		"for another resource": grant(server.Issuer, "https://other.example.com/mcp"), "an ID token": person.IDToken, "no JWT": "x",
	} {
		if _, err := server.Redeem(t.Context(), token); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := idp.Exchange(t.Context(), person.AccessToken, server.Issuer, server.URL(), ""); err == nil {
		t.Error("the identity provider exchanged an access token as an ID token")
	}
}
