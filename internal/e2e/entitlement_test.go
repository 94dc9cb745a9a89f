package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// apply applies rules, and returns their version.
func (i *installation) apply(rules string) int {
	i.t.Helper()
	applied := i.must("PUT", "/v1/tenants/acme/mapping", i.operator,
		fmt.Sprintf(`{"document":%q,"reason":"test"}`, "rules:\n"+rules))
	return int(applied["version"].(float64))
}

// createGroup provisions a group.
func (i *installation) createGroup(name string, members ...string) string {
	i.t.Helper()
	list := make([]string, len(members))
	for n, m := range members {
		list[n] = fmt.Sprintf(`{"value":%q}`, m)
	}
	return i.must("POST", "/scim/v2/Groups", i.scim,
		fmt.Sprintf(`{"displayName":%q,"members":[%s]}`, name, strings.Join(list, ",")))["id"].(string)
}

func (i *installation) patch(path string, operations ...string) {
	i.t.Helper()
	i.must("PATCH", "/scim/v2"+path, i.scim,
		`{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[`+strings.Join(operations, ",")+`]}`)
}

func (i *installation) join(group, member string) {
	i.t.Helper()
	i.patch("/Groups/"+group, fmt.Sprintf(`{"op":"add","path":"members","value":[{"value":%q}]}`, member))
}

func (i *installation) quit(group, member string) {
	i.t.Helper()
	i.patch("/Groups/"+group, fmt.Sprintf(`{"op":"remove","path":"members[value eq \"%s\"]"}`, member))
}

// entitled returns the names of a principal's entitlements.
func (i *installation) entitled(principal string) []string {
	i.t.Helper()
	held, err := i.app.Entitlements.Of(i.t.Context(), i.tenant.ID, uuid.MustParse(principal))
	if err != nil {
		i.t.Fatal(err)
	}
	names := []string{}
	for _, e := range held {
		names = append(names, e.Name)
	}
	return names
}

// becomes waits until a principal has exactly the wanted entitlements.
func (i *installation) becomes(principal string, want ...string) {
	i.t.Helper()
	var got []string
	defer func() {
		if diff := cmp.Diff(want, got); i.t.Failed() && diff != "" {
			i.t.Logf("entitlements: %s", diff)
		}
	}()
	stacktest.Eventually(i.t, 20*time.Second, "the entitlements", func() bool {
		got = i.entitled(principal)
		return slices.Equal(got, want)
	})
}

// becomesState waits for an item's state.
func (i *installation) becomesState(item, state string) {
	i.t.Helper()
	stacktest.Eventually(i.t, 20*time.Second, "the state "+state, func() bool { return i.state(item) == state })
}

// grant issues a key of the platform and registers it under an entitlement.
func (i *installation) grant(p *platform, principal, reference, entitlement string) (status int, item string) {
	i.t.Helper()
	p.issue(reference)
	status, answer := i.call("POST", "/v1/credentials", i.platform,
		fmt.Sprintf(`{"principalId":%q,"kind":"api_key","connector":"platform","reference":%q,"entitlement":%q}`,
			principal, reference, entitlement))
	item, _ = answer["id"].(string)
	return status, item
}

func (i *installation) mustGrant(p *platform, principal, reference, entitlement string) string {
	i.t.Helper()
	status, item := i.grant(p, principal, reference, entitlement)
	if status != http.StatusCreated {
		i.t.Fatalf("registering %s under %s answered %d", reference, entitlement, status)
	}
	return item
}

const engineering = `  - {group: engineering-prod, team: Engineering, role: developer, scopes: [deploy]}
`

func TestEntitlement_FollowsGroupMembership(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	i.apply(engineering + "  - {when: user.active, role: staff}\n")
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	group := i.createGroup("Engineering-PROD", bob)
	i.becomes(ada, "role:staff")

	i.join(group, ada)
	i.becomes(ada, "role:developer", "role:staff", "scope:deploy", "team:Engineering")
	i.becomes(bob, "role:developer", "role:staff", "scope:deploy", "team:Engineering")
	deploy := i.mustGrant(p, ada, "deploy-key", "scope:deploy")
	staff := i.mustGrant(p, ada, "staff-key", "role:staff")
	plain := i.hold(p, ada, "", "plain-key")
	bobs := i.mustGrant(p, bob, "bobs-key", "scope:deploy")

	i.quit(group, ada)
	i.becomes(ada, "role:staff")
	i.becomesState(deploy, "verified")
	for reference, want := range map[string]bool{
		"deploy-key": false, "staff-key": true, "plain-key": true, "bobs-key": true,
	} {
		if p.isAlive(reference) != want {
			t.Errorf("%s works: %t, want %t", reference, !want, want)
		}
	}
	for item, name := range map[string]string{staff: "staff", plain: "plain", bobs: "Bob's"} {
		if state := i.state(item); state != "live" {
			t.Errorf("the %s key is %s, want live", name, state)
		}
	}
	move := i.closed(ada)
	if move.Kind != lifecycle.Mover || move.Outcome != "completed" ||
		move.Verified != 1 || move.Trigger != "entitlement-lost" {
		t.Errorf("the move: %+v", move)
	}
	if status, _ := i.grant(p, ada, "another", "scope:deploy"); status != http.StatusConflict {
		t.Errorf("a registration under a lost entitlement answered %d, want 409", status)
	}
}

// TestEntitlement_FollowsAttributes has one change of an attribute a row, and the entitlements after
// it.
func TestEntitlement_FollowsAttributes(t *testing.T) {
	i := install(t)
	i.must("PUT", "/v1/tenants/acme/schemas/urn:example:acme:claims", i.operator, `{"resourceType":"User","schema":{
		"id":"urn:example:acme:claims","name":"Claims",`+
		`"attributes":[{"name":"clearedForProdData","type":"boolean"},{"name":"oktaRoles","type":"string"}]}}`)
	i.apply(`  - {when: claims.clearedForProdData, scope: prod.read}
  - {when: enterprise.department == "Engineering", team: Engineering}
  - {when: enterprise.manager.value != "", role: managed}
  - {when: '"writer" in json(claims.oktaRoles).roles', role: writer}
`)
	ada, grace := i.createUser("ada@example.com"), i.createUser("grace@example.com")
	i.becomes(ada)
	for _, step := range []struct {
		patch string
		want  []string
	}{
		{`{"op":"add","path":"urn:example:acme:claims:clearedForProdData","value":"True"}`, []string{"scope:prod.read"}},
		{
			`{"op":"add","path":"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department","value":"Engineering"}`,
			[]string{"scope:prod.read", "team:Engineering"},
		},
		{
			`{"op":"add","path":"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager","value":"` + grace + `"}`,
			[]string{"role:managed", "scope:prod.read", "team:Engineering"},
		},
		{
			`{"op":"add","path":"urn:example:acme:claims:oktaRoles","value":"{\"roles\":[\"writer\"]}"}`,
			[]string{"role:managed", "role:writer", "scope:prod.read", "team:Engineering"},
		},
		{
			`{"op":"replace","path":"urn:example:acme:claims:oktaRoles","value":"{no JSON"}`,
			[]string{"role:managed", "scope:prod.read", "team:Engineering"},
		},
		{`{"op":"remove","path":"urn:example:acme:claims"}`, []string{"role:managed", "team:Engineering"}},
	} {
		i.patch("/Users/"+ada, step.patch)
		i.becomes(ada, step.want...)
	}
}

func TestMover_FailedCascadeCanBeRunAgain(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()), func(c *config.Config) { c.Policy.Deadline = time.Second })
	i.apply(engineering)
	ada := i.createUser("ada@example.com")
	group := i.createGroup("engineering-prod", ada)
	i.becomes(ada, "role:developer", "scope:deploy", "team:Engineering")
	i.mustGrant(p, ada, "stubborn", "team:Engineering")
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
		w.WriteHeader(http.StatusForbidden)
		return kind == "credential.revoke"
	})
	i.quit(group, ada)
	if move := i.closed(ada); move.Outcome != "failed" || move.Survivors != 1 {
		t.Fatalf("the move: %+v", move)
	}
	p.interceptWith(nil)
	i.must("POST", "/v1/tenants/acme/cascades/"+i.cascades(ada)[0].ID.String()+"/rerun", i.operator,
		`{"reason":"repaired"}`)
	stacktest.Eventually(t, 20*time.Second, "the re-run", func() bool { return i.cascades(ada)[0].Outcome == "completed" })
	if p.isAlive("stubborn") {
		t.Error("the key still works")
	}
}

func TestReactivation_RestoresEntitlementsNotCredentials(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	i.apply(engineering)
	ada := i.createUser("ada@example.com")
	i.createGroup("engineering-prod", ada)
	i.becomes(ada, "role:developer", "scope:deploy", "team:Engineering")
	key := i.mustGrant(p, ada, "key", "team:Engineering")
	i.deactivate(ada)
	i.becomes(ada)
	i.becomesState(key, "verified")
	i.patch("/Users/"+ada, `{"op":"replace","path":"active","value":true}`)
	i.becomes(ada, "role:developer", "scope:deploy", "team:Engineering")
	if state := i.state(key); state != "verified" || p.isAlive("key") {
		t.Errorf("the key is %s, and works: %t", state, p.isAlive("key"))
	}
}

// TestEntitlement_FollowsRenamedNestedAndDeletedGroups changes a group, and the group that contains
// it, step by step.
func TestEntitlement_FollowsRenamedNestedAndDeletedGroups(t *testing.T) {
	i := install(t)
	i.apply("  - {group: \"eng-*\", team: Engineering}\n  - {externalId: okta-7, role: seven}\n" +
		"  - {when: '!groups.exists(g, g.displayName == \"contractors\")', role: insider}\n")
	ada := i.createUser("ada@example.com")
	inner := i.createGroup("squad", ada)
	i.becomes(ada, "role:insider")
	outer := i.createGroup("eng-all", inner)
	i.becomes(ada, "role:insider", "team:Engineering")
	i.patch("/Groups/"+outer, `{"op":"replace","path":"displayName","value":"sales"}`)
	i.becomes(ada, "role:insider")
	i.patch("/Groups/"+inner, `{"op":"replace","value":{"externalId":"okta-7","displayName":"contractors"}}`)
	i.becomes(ada, "role:seven")
	i.patch("/Groups/"+outer, `{"op":"replace","path":"displayName","value":"eng-2"}`)
	i.becomes(ada, "role:seven", "team:Engineering")
	// A cycle of groups is evaluated without looping.
	i.join(inner, outer)
	i.becomes(ada, "role:seven", "team:Engineering")
	if status, _ := i.raw("DELETE", "/scim/v2/Groups/"+inner, i.scim, ""); status != http.StatusNoContent {
		t.Fatalf("deleting a group answered %d", status)
	}
	i.becomes(ada, "role:insider")
}

func TestEntitlement_AgentsInheritFromGroups(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	i.apply("  - {group: bots, scopes: [mail]}\n  - {when: 'agent.agentType == \"writer\"', role: writer}\n")
	ada := i.createUser("ada@example.com")
	agent := i.createAgent("outreach", ada)
	group := i.createGroup("bots", agent)
	i.patch("/Agents/"+agent, `{"op":"add","path":"agentType","value":"writer"}`)
	i.becomes(agent, "role:writer", "scope:mail")
	key := i.mustGrant(p, agent, "mail-key", "scope:mail")
	i.quit(group, agent)
	i.becomes(agent, "role:writer")
	i.becomesState(key, "verified")
}

func TestMapping_DiffMatchesApply(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	first := i.apply(engineering)
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	i.createGroup("engineering-prod", ada)
	i.createGroup("sales", bob)
	i.becomes(ada, "role:developer", "scope:deploy", "team:Engineering")
	key := i.mustGrant(p, ada, "deploy-key", "scope:deploy")
	next := "rules:\n  - {group: engineering-prod, team: Engineering, role: developer}\n  - {group: sales, team: Sales}\n"
	difference := i.must("POST", "/v1/tenants/acme/mapping/diff", i.operator, fmt.Sprintf(`{"document":%q}`, next))
	want := map[string]any{
		"baseVersion": float64(first), "principals": 2.0, "ends": 1.0,
		"gained": map[string]any{"team:Sales": 1.0}, "lost": map[string]any{"scope:deploy": 1.0},
		"changes": []any{
			map[string]any{"principal": ada, "lost": []any{"scope:deploy"}},
			map[string]any{"principal": bob, "gained": []any{"team:Sales"}},
		},
	}
	if diff := cmp.Diff(want, difference); diff != "" {
		t.Error(diff)
	}
	if got := i.entitled(bob); len(got) != 0 {
		t.Errorf("a diff gave Bob the entitlements %v, want none", got)
	}
	apply := func(base int) (int, map[string]any) {
		return i.call("PUT", "/v1/tenants/acme/mapping", i.operator,
			fmt.Sprintf(`{"document":%q,"reason":"reorganised","baseVersion":%d}`, next, base))
	}
	if status, _ := apply(first + 7); status != http.StatusConflict {
		t.Errorf("applying with an outdated baseVersion answered %d, want 409", status)
	}
	if status, answer := apply(first); status != http.StatusOK {
		t.Fatalf("applying answered %d %v", status, answer)
	}
	i.becomes(ada, "role:developer", "team:Engineering")
	i.becomes(bob, "team:Sales")
	i.becomesState(key, "verified")

	i.must("POST", "/v1/tenants/acme/mapping/rollback", i.operator,
		fmt.Sprintf(`{"version":%d,"reason":"too early"}`, first))
	i.becomes(bob)
	i.becomes(ada, "role:developer", "scope:deploy", "team:Engineering")
	history := i.must("GET", "/v1/tenants/acme/mapping/versions", i.operator, "")["items"].([]any)
	if len(history) != 3 || history[0].(map[string]any)["reason"] != "back to version 1: too early" {
		t.Errorf("the history: %v", history)
	}
}

func TestPrincipal_ShowsSourcesOfEntitlements(t *testing.T) {
	i := install(t)
	i.apply("  - {name: engineers, group: engineering-prod, team: Engineering}\n")
	ada := i.createUser("ada@example.com")
	group := i.createGroup("engineering-prod", ada)
	i.becomes(ada, "team:Engineering")
	shown := i.must("GET", "/v1/tenants/acme/principals/"+ada, i.operator, "")
	source := shown["entitlements"].([]any)[0].(map[string]any)["sources"].([]any)[0]
	want := map[string]any{"rule": "engineers", "group": group, "groupName": "engineering-prod"}
	if diff := cmp.Diff(want, source); diff != "" {
		t.Error(diff)
	}
}

func TestMapping_RejectsInvalidRulesWithPosition(t *testing.T) {
	i := installAPI(t)
	i.apply(engineering)
	status, answer := i.call("PUT", "/v1/tenants/acme/mapping", i.operator,
		`{"document":"rules:\n  - {when: claims.cleared, team: x}","reason":"test"}`)
	if status != http.StatusUnprocessableEntity || answer["line"] != 2.0 || answer["column"] != 18.0 ||
		!strings.Contains(answer["detail"].(string), "undefined field 'cleared'") {
		t.Errorf("an unknown attribute answered %d %v", status, answer)
	}
	if version := i.must("GET", "/v1/tenants/acme/mapping", i.operator, "")["version"]; version != 1.0 {
		t.Errorf("version %v is in force, want 1", version)
	}
}

func TestSchema_DeleteRefusedWhileRulesUseIt(t *testing.T) {
	i := installAPI(t)
	const path = "/v1/tenants/acme/schemas/urn:example:acme:claims"
	i.must("PUT", path, i.operator, `{"resourceType":"User","schema":{"id":"urn:example:acme:claims",`+
		`"name":"Claims","attributes":[{"name":"cleared","type":"boolean"}]}}`)
	i.apply("  - {when: claims.cleared, team: x}\n")
	if status, _ := i.call("DELETE", path, i.operator, ""); status != http.StatusConflict {
		t.Errorf("deleting a schema that a rule uses answered %d, want 409", status)
	}
	i.apply("  - {group: x, team: x}\n")
	if status, _ := i.raw("DELETE", path, i.operator, ""); status != http.StatusNoContent {
		t.Errorf("deleting a schema that no rule uses answered %d, want 204", status)
	}
}

// TestRelease_RefusedWhileTheEntitlementIsLost releases a credential after the change that takes its
// entitlement, before that change is evaluated.
func TestRelease_RefusedWhileTheEntitlementIsLost(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	i.apply(engineering)
	ada := i.createUser("ada@example.com")
	group := i.createGroup("engineering-prod", ada)
	key := i.mustGrant(p, ada, "deploy-key", "scope:deploy")
	i.quit(group, ada)
	if status, _ := i.call("DELETE", "/v1/credentials/"+key, i.platform, ""); status != http.StatusConflict {
		t.Errorf("the release answered %d, want 409", status)
	}
	i.work()
	i.becomesState(key, "verified")
	if p.isAlive("deploy-key") {
		t.Error("the key works after its entitlement was lost")
	}
}
