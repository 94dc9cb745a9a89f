package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func (i *installation) group(name string, members ...string) string {
	i.t.Helper()
	list := ""
	for n, m := range members {
		if n > 0 {
			list += ","
		}
		list += `{"value":"` + m + `"}`
	}
	return i.must("POST", "/scim/v2/Groups", i.scim, `{"displayName":"`+name+`","members":[`+list+`]}`)["id"].(string)
}

func (i *installation) active(agent string) bool {
	i.t.Helper()
	return i.must("GET", "/scim/v2/Agents/"+agent, i.scim, "")["active"] != false
}

func TestOwners_IncludeMembersOfNestedGroups(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	team := i.group("team", ada, bob)
	agent := i.createAgent("owned-by-the-department", i.group("department", team))
	own := i.hold(p, agent, agent, "own")
	i.deactivate(ada)
	i.closed(ada)
	if !i.active(agent) || i.state(own) != "live" {
		t.Errorf("the agent with another owner is suspended, or its key is %s, want live", i.state(own))
	}
	i.deactivate(bob)
	if c := i.closed(bob); c.Outcome != "completed" || i.active(agent) || i.state(own) != "verified" {
		t.Errorf("cascade %+v; the agent's key is %s; want the agent suspended and its key verified", c, i.state(own))
	}
}

func TestSubAgent_EndsWithParentUnlessOwned(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	child := func(name, parent, owners string) string {
		return i.must("POST", "/scim/v2/Agents", i.scim,
			fmt.Sprintf(`{"agentUserName":%q,"parent":{"value":%q},"owners":[%s]}`, name, parent, owners))["id"].(string)
	}
	top := i.createAgent("top", ada)
	// Every sub-agent has an owner, so that it may hold a credential. Bob's is not affected.
	sub := child("sub", top, `{"value":"`+ada+`"}`)
	subsub := child("subsub", sub, `{"value":"`+ada+`"}`)
	his := child("his", sub, `{"value":"`+bob+`"}`)
	held := map[string]string{}
	for _, agent := range []string{top, sub, subsub, his} {
		held[agent] = i.hold(p, agent, agent, agent)
	}
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || c.Verified != 3 {
		t.Errorf("cascade %+v; want 3 verified", c)
	}
	got := []bool{i.active(top), i.active(sub), i.active(subsub), i.active(his)}
	if want := []bool{false, false, false, true}; !cmp.Equal(got, want) {
		t.Errorf("active: %v, want %v", got, want)
	}
	if s := i.state(held[his]); s != "live" {
		t.Errorf("the key of the other owner's agent is %s, want live", s)
	}
}

func TestParent_RejectsCyclesAndLongChains(t *testing.T) {
	i := installAPI(t)
	ada := i.createUser("ada@example.com")
	top := i.createAgent("top", ada)
	parent, status := top, 0
	for n := range 40 {
		var answer map[string]any
		status, answer = i.call("POST", "/scim/v2/Agents", i.scim,
			fmt.Sprintf(`{"agentUserName":"sub%d","parent":{"value":%q},"owners":[{"value":%q}]}`, n, parent, ada))
		if status != http.StatusCreated {
			break
		}
		parent = answer["id"].(string)
	}
	if status != http.StatusBadRequest {
		t.Errorf("a chain of 40 parents answered %d, want 400", status)
	}
	if status, answer := i.call("PATCH", "/scim/v2/Agents/"+top, i.scim,
		`{"Operations":[{"op":"add","path":"parent","value":{"value":"`+parent+`"}}]}`); status != http.StatusBadRequest ||
		answer["scimType"] != "invalidValue" {
		t.Errorf("a cycle of parents answered %d %v, want 400 invalidValue", status, answer)
	}
}

func TestOrphan_IsTransferredToManager(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"orphans":"manager"}`)
	boss := i.createUser("boss@example.com")
	managed := func(name, manager string) string {
		return i.must("POST", "/scim/v2/Users", i.scim, `{"userName":"`+name+`","active":true,`+
			`"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User":{"manager":{"value":"`+manager+`"}}}`)["id"].(string)
	}
	ada := managed("ada@example.com", boss)
	agent := i.createAgent("hers", ada)
	hers, own := i.hold(p, ada, agent, "for-ada"), i.hold(p, agent, agent, "own")
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || i.state(hers) != "verified" ||
		i.state(own) != "live" || !i.active(agent) {
		t.Errorf("cascade %+v, key for Ada %s, own key %s, active %t; want verified, live and active",
			c, i.state(hers), i.state(own), i.active(agent))
	}
	owners := i.must("GET", "/scim/v2/Agents/"+agent, i.scim, "")["owners"].([]any)
	found := false
	for _, o := range owners {
		found = found || o.(map[string]any)["value"] == boss
	}
	if !found {
		t.Errorf("owners %v, want the manager among them", owners)
	}
	// Without an active manager, the orphan is suspended.
	eve := managed("eve@example.com", ada)
	orphan := i.createAgent("orphan", eve)
	i.deactivate(eve)
	i.closed(eve)
	if i.active(orphan) {
		t.Error("an orphan whose owner's manager is restricted is still active")
	}
}

func TestAgent_EndsWhenNestedOwnerGroupIsEmptied(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	inner := i.group("inner", ada)
	agent := i.createAgent("owned-from-outside", i.group("outer", inner))
	id := i.hold(p, agent, agent, "own")
	// The IdP empties the inner group before it deactivates the user.
	i.must("PATCH", "/scim/v2/Groups/"+inner, i.scim, `{"Operations":[{"op":"remove","path":"members"}]}`)
	i.deactivate(ada)
	if c := i.closed(agent); c.Outcome != "completed" || c.Trigger != "orphaned" || i.state(id) != "verified" {
		t.Errorf("cascade %+v, credential %s; want it orphaned, completed and verified", c, i.state(id))
	}
}
