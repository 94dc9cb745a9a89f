package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/leaverhq/leaver/internal/config"
)

// bugs are bugs of other products, each with a test that leaver does not have it.
// These need the whole product; the others are in package scim.
var bugs = []struct {
	name string
	test func(t *testing.T)
}{
	{"2 Zitadel CVE-2026-32130: authentication matched the raw path, the router the decoded one", func(t *testing.T) {
		i := installAPI(t)
		for _, path := range []string{
			"/scim%2Fv2/Users", "/scim/v2%2FUsers", "/scim/v2/%55sers", "//scim/v2/Users", "/scim/v2//Users",
			"/scim/v2/./Users", "/scim/v2/Users/..%2FSchemas", "/t/acme%2Fscim%2Fv2/Users", "/t/%61cme/scim/v2/Users",
			"/v1%2Ftenants", "/v1/tenants/%2e%2e/tenants", "/scim/v2/Users;x=1", "/SCIM/v2/Users",
		} {
			for _, method := range []string{"GET", "POST", "PATCH", "DELETE"} {
				if status, raw := i.raw(method, path, "", `{}`); status != http.StatusUnauthorized &&
					status != http.StatusNotFound && status != http.StatusMethodNotAllowed {
					t.Errorf("%s %s without a token answered %d: %s", method, path, status, raw)
				}
			}
		}
	}},
	{"5 Casdoor CVE-2025-4210: SCIM routes stood outside the authentication", everyRouteRefusesWhoHasNoTokenOfItsClass},
	{"13 PostHog #52372: SCIM reached across tenants", twoTenantsCannotSeeEachOtherOnAnyRoute},
	{"16 agent-bom #3687: keys were revoked only if their name matched the user", func(t *testing.T) {
		p := newPlatform(t)
		i := install(t, withConnectors(p.connector()))
		ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
		ci, named := i.hold(p, ada, "", "ci-deploy"), i.hold(p, bob, "", "ada@example.com")
		i.deactivate(ada)
		i.closed(ada)
		if i.state(ci) != "verified" || p.isAlive("ci-deploy") {
			t.Errorf("the user's key with another name is %s, want verified", i.state(ci))
		}
		if i.state(named) != "live" || !p.isAlive("ada@example.com") {
			t.Errorf("another user's key with the user's name is %s, want live", i.state(named))
		}
	}},
	{"24 zeroid #89, authentik #25081, autentico #170: deactivated, and the tokens lived on", func(t *testing.T) {
		p := newPlatform(t)
		i := install(t, withConnectors(p.connector()))
		ada := i.createUser("ada@example.com")
		agent := i.createAgent("ada-agent", ada)
		held := map[string]string{
			"hers": i.hold(p, ada, "", "hers"), "her agent's": i.hold(p, ada, agent, "her agent's"),
			"the agent's own": i.hold(p, agent, agent, "the agent's own"),
		}
		i.deactivate(ada)
		i.closed(ada)
		for reference, id := range held {
			if i.state(id) != "verified" || p.isAlive(reference) {
				t.Errorf("%s is %s, alive %t; want verified and dead", reference, i.state(id), p.isAlive(reference))
			}
		}
	}},
	{"25 a 200 from the revoker while the token still works", func(t *testing.T) {
		p := newPlatform(t)
		i := install(t, withConnectors(p.connector()), func(c *config.Config) {
			c.Policy.Deadline, c.Policy.AttemptTimeout = 2*time.Second, 2*time.Second
		})
		ada := i.createUser("ada@example.com")
		key := i.hold(p, ada, "", "key")
		p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
			if strings.HasPrefix(kind, "credential.revoke") {
				_, _ = io.WriteString(w, `{"outcome":"done"}`)
				return true
			}
			return false
		})
		i.deactivate(ada)
		if c := i.closed(ada); c.Outcome != "failed" || c.Survivors != 1 || i.state(key) != "failed" {
			t.Errorf("cascade %+v, key %s; want failed with a survivor", c, i.state(key))
		}
	}},
}

func TestRegressions_BugsOfOtherProducts(t *testing.T) {
	for _, b := range bugs {
		t.Run(b.name, b.test)
	}
}
