package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/authzen"
	"github.com/leaverhq/leaver/internal/extauthz"
	"github.com/leaverhq/leaver/scim"
)

// audited are the routes that a viewer may not read: who may call leaver, what operators did, and the evidence.
var audited = []string{
	"/acts", "/tokens", "/operator-tokens", "/issuers", "/clients", "/evidence", "/evidence/checkpoints",
	"/evidence/keys", "/evidence/exports", "/histories", "/histories/{run}",
}

// rolesOf returns the classes of tokens that a route lets through, by what the documents say of the roles.
func rolesOf(r route) []auth.Class {
	below := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(r.pattern, p) })
	}
	switch {
	case below(extauthz.BasePath, extauthz.IntrospectionPath, extauthz.GRPCPath):
		return nil // the proxy's token is in a header of its own, see TestExtAuthz_DecidesByTheToken
	case strings.Contains(r.pattern, scim.BasePath):
		return []auth.Class{auth.ClassSCIM}
	case below("/v1/credentials", "/v1/scheduled-runs", "/v1/import", "/v1/principals", authzen.BasePath):
		return []auth.Class{auth.ClassPlatform}
	case below("/ssf/"):
		return []auth.Class{auth.ClassReceiver}
	case strings.HasSuffix(r.pattern, "/global-token-revocation"):
		return nil // a JWT of an identity provider
	}
	in := func(suffixes ...string) bool {
		return slices.ContainsFunc(suffixes, func(s string) bool {
			return strings.HasSuffix(r.pattern, s) && !strings.HasSuffix(r.pattern, "/cascades/{id}"+s)
		})
	}
	switch {
	case in("/holds/approve", "/waivers/{id}/approve", "/waivers/{id}/decline", "/principals/{id}/erase"):
		return []auth.Class{auth.ClassApprover}
	case r.method == http.MethodPatch && strings.HasSuffix(r.pattern, "/tenants/{tenant}"):
		return []auth.Class{auth.ClassOperator, auth.ClassApprover}
	case r.method == http.MethodGet && (in(audited...) || strings.Contains(r.pattern, "/histories")),
		in("/evidence/exports"):
		return []auth.Class{auth.ClassOperator, auth.ClassAuditor}
	case r.method == http.MethodGet, in("/mapping/test", "/sign-ins"):
		return []auth.Class{auth.ClassOperator, auth.ClassViewer, auth.ClassAuditor}
	}
	return []auth.Class{auth.ClassOperator}
}

// TestRoles_EachRouteLetsItsRolesThrough calls every route, except the console's, which call these with the session's
// token, with a token of each class, and without one.
func TestRoles_EachRouteLetsItsRolesThrough(t *testing.T) {
	i := installAPI(t)
	tokens := map[auth.Class]string{"": "", auth.ClassSCIM: i.scim, auth.ClassPlatform: i.platform}
	for _, class := range []auth.Class{auth.ClassOperator, auth.ClassApprover, auth.ClassViewer, auth.ClassAuditor} {
		tokens[class] = i.token(uuid.Nil, class)
	}
	tokens[auth.ClassReceiver] = i.token(i.tenant.ID, auth.ClassReceiver)
	fill := strings.NewReplacer("{id}", uuid.NewString(), "{tenant}", "acme", "{name}", "x", "{urn}", "x", "{run}", "x",
		"{version}", "1")
	routes := 0
	for _, r := range i.routes() {
		if open[r.pattern] || strings.HasPrefix(r.pattern, "/console/") { // see TestConsole_NeedsASession
			continue
		}
		routes++
		allowed := rolesOf(r)
		for class, token := range tokens {
			status, _ := i.raw(r.method, fill.Replace(r.pattern), token, `{`) // not JSON, so that nothing is changed
			if through := status != http.StatusUnauthorized; through != slices.Contains(allowed, class) {
				t.Errorf("%s %s with a token of class %q answered %d; it is for %v", r.method, r.pattern, class, status, allowed)
			}
		}
	}
	if routes < 150 {
		t.Errorf("%d routes were called, want at least 150", routes)
	}
}

// TestRoles_AreIssuedAndRevokedByOperatorsAlone also shows that no role can make itself another one.
func TestRoles_AreIssuedAndRevokedByOperatorsAlone(t *testing.T) {
	i := installAPI(t)
	for _, class := range []string{"viewer", "auditor"} {
		answer := i.must(http.MethodPost, "/v1/operator-tokens", i.operator, `{"class":"`+class+`"}`)
		secret := answer["secret"].(string)
		if !strings.HasPrefix(secret, "leaver_"+class+"_") {
			t.Errorf("the token of a %s does not show its class", class)
		}
		i.must(http.MethodGet, "/v1/tenants/acme/cascades", secret, "")
		for _, other := range []string{"operator", "approver", "auditor"} {
			if status, _ := i.call(http.MethodPost, "/v1/operator-tokens", secret, `{"class":"`+other+`"}`); status != http.StatusUnauthorized {
				t.Errorf("a %s issues a token of class %s: %d", class, other, status)
			}
		}
		i.must(http.MethodDelete, "/v1/operator-tokens/"+answer["id"].(string), i.operator, "")
		if status, _ := i.call(http.MethodGet, "/v1/tenants/acme/cascades", secret, ""); status != http.StatusUnauthorized {
			t.Errorf("a revoked token of a %s answered %d", class, status)
		}
	}
	if status, _ := i.call(http.MethodPost, "/v1/operator-tokens", i.operator, `{"class":"approver"}`); status != http.StatusUnprocessableEntity {
		t.Errorf("an operator issues an approver's token: %d", status)
	}
	if status, _ := i.call(http.MethodPost, "/v1/tenants/acme/tokens", i.operator, `{"class":"viewer"}`); status != http.StatusUnprocessableEntity {
		t.Errorf("a viewer of one tenant: %d", status)
	}
}
