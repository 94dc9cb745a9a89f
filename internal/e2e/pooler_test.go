package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// TestPooler_MainPathsInTransactionMode runs two tenants concurrently through a pgbouncer whose
// server connections they share.
func TestPooler_MainPathsInTransactionMode(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()), func(c *config.Config) {
		c.Database.URL = stacktest.Pgbouncer(t, c.Database.URL)
	})
	other := *i
	other.tenant, other.scim, other.platform = i.newTenant("other")

	ada, bob := i.createUser("ada@example.com"), other.createUser("bob@example.com")
	agent := i.createAgent("agent", ada)
	group := i.createGroup("staff", ada)
	i.apply("  - {group: staff, scopes: [mail.send]}\n")
	key := i.hold(p, ada, agent, "key")
	if found := i.must("GET", "/scim/v2/Users?filter=userName+eq+%22ada@example.com%22",
		i.scim, ""); found["totalResults"] != 1.0 {
		t.Errorf("found %v", found)
	}
	// No tenant sees the other's resources although they share connections.
	for range 20 {
		if status, _ := i.call("GET", "/scim/v2/Users/"+bob, i.scim, ""); status != http.StatusNotFound {
			t.Fatalf("another tenant's user is answered %d", status)
		}
		if status, _ := other.call("GET", "/scim/v2/Users/"+bob, other.scim, ""); status != http.StatusOK {
			t.Fatalf("the tenant's own user is answered %d", status)
		}
	}
	i.patch("/Groups/"+group, `{"op":"replace","path":"displayName","value":"people"}`)
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || c.Verified != 1 || i.state(key) != "verified" || p.isAlive("key") {
		t.Errorf("cascade %+v, and the key is %s; logs:\n%s", c, i.state(key), i.logs)
	}
	question := fmt.Sprintf(`{"subject":{"type":"agent","id":%q,"properties":{"on_behalf_of":%q}},`+
		`"action":{"name":"mail.send"},"resource":{"type":"mail","id":"1"}}`, agent, ada)
	if answer := i.must("POST", "/access/v1/evaluation", i.platform, question); answer["decision"] != false {
		t.Errorf("decided %v about a suspended agent", answer)
	}
}
