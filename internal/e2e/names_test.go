package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"
)

const (
	ownIssuer   = "https://idp.example.com"
	otherIssuer = "https://other.example.com"
)

// gateway returns a token of class platform for a gateway that sees the tokens of an issuer.
func (i *installation) gateway(issuer string) string {
	i.t.Helper()
	return i.must("POST", "/v1/tenants/acme/tokens", i.operator,
		fmt.Sprintf(`{"class":"platform","issuer":%q}`, issuer))["secret"].(string)
}

// clientOf provisions an agent with an OAuth client, of an issuer or of none.
func (i *installation) clientOf(name, owner, client, issuer string) string {
	i.t.Helper()
	identifier := fmt.Sprintf(`{"clientId":%q}`, client)
	if issuer != "" {
		identifier = fmt.Sprintf(`{"clientId":%q,"issuerUri":%q}`, client, issuer)
	}
	return i.must("POST", "/scim/v2/Agents", i.scim, fmt.Sprintf(
		`{"agentUserName":%q,"active":true,"owners":[{"value":%q}],"oAuthClientIdentifiers":[%s]}`,
		name, owner, identifier))["id"].(string)
}

// claims asks whose claims a token has, and returns the status and the id.
func (i *installation) claims(token, sub, client string) (int, string) {
	i.t.Helper()
	query := url.Values{}
	for name, value := range map[string]string{"sub": sub, "client_id": client} {
		if value != "" {
			query.Set(name, value)
		}
	}
	status, answer := i.call("GET", "/v1/principals?"+query.Encode(), token, "")
	id, _ := answer["id"].(string)
	return status, id
}

// TestNames_ResolveClaims has one token a row. The directory's names are those of every issuer;
// a client_id with an issuer is that issuer's alone.
func TestNames_ResolveClaims(t *testing.T) {
	i := installAPI(t)
	ada := i.must("POST", "/scim/v2/Users", i.scim, `{"userName":"Ada@Example.com","externalId":"00u1","active":true,`+
		`"emails":[{"value":"ada.l@example.com"}]}`)["id"].(string)
	bob := i.must("POST", "/scim/v2/Users", i.scim,
		`{"userName":"bob","externalId":"6f1d2c3a-0000-4000-8000-000000000001","active":true}`)["id"].(string)
	eve := i.must("POST", "/scim/v2/Users", i.scim, `{"userName":"eve","externalId":"bob","active":true}`)["id"].(string)
	i.must("POST", "/scim/v2/Users", i.scim, `{"userName":"mallory","externalId":"`+ada+`","active":true}`)
	agent := i.must("POST", "/scim/v2/Agents", i.scim, fmt.Sprintf(`{"agentUserName":"writer","subject":"wl-1","active":true,`+
		`"owners":[{"value":%q}],"oAuthClientIdentifiers":[{"clientId":"https://agents.example.com/writer"}]}`, ada))["id"].(string)
	shared, bobs := i.clientOf("shared-ada", ada, "shared", ""), i.clientOf("shared-bob", bob, "shared", "")
	here, there := i.clientOf("here", ada, "c-1", ownIssuer), i.clientOf("there", ada, "c-1", otherIssuer)
	i.clientOf("twin-1", bob, "twins", "")
	i.clientOf("twin-2", bob, "twins", "")
	gateway := i.gateway(ownIssuer)
	for name, row := range map[string]struct {
		token, sub, client string
		status             int
		want               string
	}{
		"a userName, whatever its case":                   {gateway, "ADA@example.com", "", 200, ada},
		"an externalId":                                   {gateway, "00u1", "", 200, ada},
		"an externalId of another case":                   {gateway, "00U1", "", 404, ""},
		"an externalId in the form of an id":              {gateway, "6f1d2c3a-0000-4000-8000-000000000001", "", 200, bob},
		"an e-mail address":                               {gateway, "ADA.L@example.com", "", 200, ada},
		"a SCIM id":                                       {gateway, bob, "", 200, bob},
		"an agent's subject":                              {gateway, "wl-1", "", 200, agent},
		"another person's userName":                       {gateway, "bob", "", 422, ""},
		"another person's id":                             {gateway, ada, "", 422, ""},
		"a userName that is no other's":                   {gateway, "eve", "", 200, eve},
		"nobody":                                          {gateway, "nobody", "", 404, ""},
		"a client_id alone":                               {gateway, "", "https://agents.example.com/writer", 200, agent},
		"a client of the caller's issuer":                 {gateway, "00u1", "c-1", 200, here},
		"the same client of another issuer":               {i.gateway(otherIssuer), "00u1", "c-1", 200, there},
		"a client of some issuer, by a caller of none":    {i.platform, "00u1", "c-1", 404, ""},
		"a shared client, for one person":                 {gateway, "00u1", "shared", 200, shared},
		"a shared client, for another person":             {gateway, "6f1d2c3a-0000-4000-8000-000000000001", "shared", 200, bobs},
		"a shared client, for a person without its agent": {gateway, "eve", "shared", 404, ""},
		"a shared client alone":                           {gateway, "", "shared", 422, ""},
		"two agents of one owner with one client":         {gateway, "6f1d2c3a-0000-4000-8000-000000000001", "twins", 422, ""},
		"an agent that acts for itself":                   {gateway, "wl-1", "https://agents.example.com/writer", 200, agent},
		"no claim":                                        {gateway, "", "", 400, ""},
	} {
		if status, id := i.claims(row.token, row.sub, row.client); status != row.status || id != row.want {
			t.Errorf("%s: %d %q, want %d %q", name, status, id, row.status, row.want)
		}
	}
	if status, _ := i.call("GET", "/v1/principals?sub=00u1&issuer="+url.QueryEscape(otherIssuer), gateway, ""); status != http.StatusBadRequest {
		t.Errorf("another issuer than the caller's answered %d, want 400", status)
	}
	_, _, foreign := i.newTenant("umbrella")
	if status, id := i.claims(foreign, "00u1", ""); status != http.StatusNotFound {
		t.Errorf("another tenant's platform resolved %q with %d, want 404", id, status)
	}
	names := i.must("GET", "/v1/tenants/acme/principals/"+ada, i.operator, "")["names"]
	if got := fmt.Sprint(names); got != "[map[kind:emails value:ada.l@example.com] map[kind:externalId value:00u1] "+
		"map[kind:userName value:ada@example.com]]" {
		t.Errorf("the names of ada are %s", got)
	}
	i.must("PATCH", "/v1/tenants/acme", i.operator, fmt.Sprintf(`{"subjectIssuers":[%q]}`, ownIssuer))
	// A process reads a tenant's settings within a second: a new token reads them at once.
	if status, id := i.claims(i.gateway(otherIssuer), "00u1", ""); status != http.StatusNotFound {
		t.Errorf("a sub of an issuer that is not the directory's resolved %q with %d, want 404", id, status)
	}
	if status, id := i.claims(i.gateway(ownIssuer), "00u1", ""); status != http.StatusOK || id != ada {
		t.Errorf("a sub of the directory's issuer resolved %q with %d, want ada", id, status)
	}
}

// TestNames_OfFormerHolderAreRefused renames and deletes people, and gives their names to others:
// the tokens of the former holders are still valid.
func TestNames_OfFormerHolderAreRefused(t *testing.T) {
	i := installAPI(t)
	renamed, deleted := i.createUser("renamed"), i.createUser("deleted")
	i.patch("/Users/"+renamed, `{"op":"replace","path":"userName","value":"renamed-2"}`)
	i.raw("DELETE", "/scim/v2/Users/"+deleted, i.scim, "")
	for _, name := range []string{"renamed", "deleted"} {
		if status, id := i.claims(i.platform, name, ""); status != http.StatusNotFound {
			t.Errorf("the freed name %s resolved %q with %d, want 404", name, id, status)
		}
		heir := i.createUser(name)
		if status, id := i.claims(i.platform, name, ""); status != http.StatusUnprocessableEntity {
			t.Errorf("the name %s resolved %q with %d while tokens of its former holder may live, want 422", name, id, status)
		}
		if got := i.ask(entityOf("user", name), "tools/call", entityOf("tool", "x")); got != "ambiguous_subject" {
			t.Errorf("a decision about %s is %s, want ambiguous_subject", name, got)
		}
		if got := i.ask(entityOf("user", heir), "tools/call", entityOf("tool", "x")); got != "allow" {
			t.Errorf("a decision by the id of the new holder is %s, want allow", got)
		}
		i.sql(`update principal_names set until = now() - interval '25 hours' where until is not null and value = $1`, name)
		if status, id := i.claims(i.platform, name, ""); status != http.StatusOK || id != heir {
			t.Errorf("a day later %s resolved %q with %d, want the new holder", name, id, status)
		}
	}
	i.patch("/Users/"+renamed, `{"op":"replace","path":"userName","value":"renamed-3"}`)
	i.patch("/Users/"+renamed, `{"op":"replace","path":"userName","value":"renamed-2"}`)
	if status, id := i.claims(i.platform, "renamed-2", ""); status != http.StatusOK || id != renamed {
		t.Errorf("a name that its holder took back resolved %q with %d, want the holder", id, status)
	}
}

// TestMCP_DefaultMapping asks the questions of COAZ-MCP's default mapping, for each method with an
// active, a deactivated, an unknown and no agent, and for a user who left.
func TestMCP_DefaultMapping(t *testing.T) {
	i := installAPI(t)
	ada := i.must("POST", "/scim/v2/Users", i.scim, `{"userName":"ada@example.com","externalId":"00u1","active":true}`)["id"].(string)
	i.must("POST", "/scim/v2/Users", i.scim, `{"userName":"gone@example.com","externalId":"00u2","active":false}`)
	i.clientOf("active", ada, "https://agents.example.com/active", "")
	off := i.clientOf("off", ada, "https://agents.example.com/off", "")
	i.patch("/Agents/"+off, `{"op":"replace","path":"active","value":false}`)
	gateway := i.gateway(ownIssuer)
	for method, resource := range map[string]string{
		"initialize": "mcp_server", "tools/list": "mcp_server", "tools/call": "tool", "resources/list": "mcp_server",
		"resources/read": "resource", "resources/subscribe": "resource", "resources/unsubscribe": "resource",
		"prompts/list": "mcp_server", "prompts/get": "prompt", "completion/complete": "prompt",
		"logging/setLevel": "mcp_server", "tasks/get": "task", "tasks/result": "task", "tasks/cancel": "task",
		"tasks/list": "mcp_server",
	} {
		for name, row := range map[string]struct{ sub, context, want string }{
			"an active agent":            {"00u1", `"context":{"agent":"https://agents.example.com/active"}`, "allow"},
			"a deactivated agent":        {"00u1", `"context":{"agent":"https://agents.example.com/off"}`, "agent_suspended"},
			"an unknown agent":           {"00u1", `"context":{"agent":"https://agents.example.com/none"}`, "unknown_agent"},
			"no agent":                   {"00u1", `"context":{}`, "agent_missing"},
			"a user who left":            {"00u2", `"context":{"agent":"https://agents.example.com/none"}`, "unknown_agent"},
			"a user who left, no agent":  {"00u2", `"context":{}`, "principal_restricted"},
			"another's agent":            {"00u2", `"context":{"agent":"https://agents.example.com/active"}`, "principal_restricted"},
			"an unknown user, no agent":  {"00u9", `"context":{}`, "unknown_subject"},
			"an unknown user's an agent": {"00u9", `"context":{"agent":"https://agents.example.com/active"}`, "unknown_subject"},
		} {
			if got := i.evaluate(gateway, fmt.Sprintf(
				`{"subject":{"type":"identity","id":%q},"action":{"name":%q},"resource":{"type":%q,"id":"x"},%s}`,
				row.sub, method, resource, row.context)); got != row.want {
				t.Errorf("%s with %s: %s, want %s", method, name, got, row.want)
			}
		}
	}
	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"unknownAgents":"allow"}`)
	gateway = i.gateway(ownIssuer)
	for context, want := range map[string]string{
		`{}`: "allow", `{"agent":"https://agents.example.com/none"}`: "allow",
		`{"agent":"https://agents.example.com/off"}`: "agent_suspended",
	} {
		if got := i.evaluate(gateway, `{"subject":{"type":"identity","id":"00u1"},"action":{"name":"tools/call"},`+
			`"resource":{"type":"tool","id":"x"},"context":`+context+`}`); got != want {
			t.Errorf("where unknown agents are allowed, %s: %s, want %s", context, got, want)
		}
	}
}

// TestMCP_RulesDecideWhatTheyName applies rules for one method and one tool.
func TestMCP_RulesDecideWhatTheyName(t *testing.T) {
	i := install(t)
	i.apply("  - {group: sales, scopes: ['tools/call:crm_search', 'tools/call:own']}\n" +
		"  - {group: ops, scopes: ['tools/call']}\n")
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	i.createGroup("sales", ada)
	i.createGroup("ops", bob)
	i.becomes(ada, "scope:tools/call:crm_search", "scope:tools/call:own")
	i.becomes(bob, "scope:tools/call")
	agents := map[string]string{ada: i.createAgent("a", ada), bob: i.createAgent("b", bob)}
	for _, row := range []struct{ user, method, kind, id, want string }{
		{ada, "tools/call", "tool", "crm_search", "allow"},
		{ada, "tools/call", "tool", "crm_delete", "not_entitled"},
		{ada, "tools/call", "tool", "own", "not_entitled"}, // tools/call:own is no scope of a tool
		{bob, "tools/call", "tool", "crm_delete", "allow"},
		{ada, "tools/list", "mcp_server", "https://mcp.example.com", "allow"},
		{ada, "prompts/get", "prompt", "x", "allow"},
	} {
		if got := i.evaluate(i.platform, fmt.Sprintf(
			`{"subject":{"type":"identity","id":%q},"action":{"name":%q},"resource":{"type":%q,"id":%q},"context":{"agent":%q}}`,
			row.user, row.method, row.kind, row.id, agents[row.user])); got != row.want {
			t.Errorf("%s on %s %s: %s, want %s", row.method, row.kind, row.id, got, row.want)
		}
	}
}

// TestDecision_SaysUntilWhenItHolds checks the context of a permit.
func TestDecision_SaysUntilWhenItHolds(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	agent := i.must("POST", "/scim/v2/Agents", i.scim, fmt.Sprintf(`{"agentUserName":"temp","active":true,"owners":[{"value":%q}],`+
		`"urn:leaver:params:scim:schemas:extension:validity:1.0:Agent":{"validUntil":"2099-01-02T00:00:00Z"}}`, ada))["id"].(string)
	p.issue("key")
	key := i.must("POST", "/v1/credentials", i.platform, fmt.Sprintf(`{"principalId":%q,"agentId":%q,"kind":"api_key",`+
		`"connector":"platform","reference":"key","expiresAt":"2098-01-02T00:00:00Z"}`, ada, agent))["id"].(string)
	for resource, want := range map[string]string{
		entityOf("credential", key): "2098-01-02T00:00:00Z", entityOf("tool", "x"): "2099-01-02T00:00:00Z",
	} {
		answer := i.must("POST", "/access/v1/evaluation", i.platform,
			fmt.Sprintf(`{"subject":%s,"action":{"name":"tools/call"},"resource":%s}`, agentFor(agent, ada), resource))
		if got := fmt.Sprint(answer["context"]); answer["decision"] != true || got != "map[validUntil:"+want+"]" {
			t.Errorf("%s answered %v, want a permit until %s", resource, answer, want)
		}
	}
}

// evaluate requests one evaluation, and returns the reason of the denial, or allow.
func (i *installation) evaluate(token, body string) string {
	i.t.Helper()
	answer := i.must("POST", "/access/v1/evaluation", token, body)
	if answer["decision"] == true {
		return "allow"
	}
	reason, _ := answer["context"].(map[string]any)["reason"].(string)
	return reason
}

// TestNames_OfDeletedAgentStayKnown: where unknown agents are allowed, an agent that leaver ended is
// not unknown.
func TestNames_OfDeletedAgentStayKnown(t *testing.T) {
	i := installAPI(t)
	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"unknownAgents":"allow"}`)
	ada := i.createUser("ada@example.com")
	agent := i.clientOf("writer", ada, "client-1", "")
	i.raw("DELETE", "/scim/v2/Agents/"+agent, i.scim, "")
	gateway := i.gateway(ownIssuer)
	for _, name := range []string{"client-1", "writer", agent} {
		if got := i.evaluate(gateway, fmt.Sprintf(`{"subject":{"type":"identity","id":"ada@example.com"},`+
			`"action":{"name":"tools/call"},"resource":{"type":"tool","id":"x"},"context":{"agent":%q}}`, name)); got != "unknown_agent" {
			t.Errorf("a decision for the deleted agent %s is %s, want unknown_agent", name, got)
		}
	}
}

// TestNames_AddressTakesNoOtherName: people may often choose their addresses, which must neither cut
// off others nor keep the own revocation from taking effect.
func TestNames_AddressTakesNoOtherName(t *testing.T) {
	p := newIDP(t)
	i := installAPI(t)
	i.addIssuer(p, "https://leaver.example.com", "events", `[]`)
	i.createUser("ada@example.com")
	leaving := i.must("POST", "/scim/v2/Users", i.scim, `{"userName":"mallory","externalId":"00u9","active":true,`+
		`"emails":[{"value":"ADA@example.com"}]}`)["id"].(string)
	i.must("POST", "/scim/v2/Users", i.scim, `{"userName":"friend","active":true,"emails":[{"value":"00u9"}]}`)
	if got := i.ask(entityOf("user", "ada@example.com"), "tools/call", entityOf("tool", "x")); got != "allow" {
		t.Errorf("a decision about ada by her userName is %s, want allow", got)
	}
	event := p.sign(t, "secevent+jwt", p.event(sessionRevoked,
		map[string]string{"format": "iss_sub", "iss": p.url, "sub": "00u9"}, nil))
	if status, answer := i.push("/t/acme/events", event); status != http.StatusAccepted || i.isActive(leaving) != false {
		t.Errorf("the event answered %d %s and left the user active", status, answer)
	}
}

// TestNames_EventsMeanTheirTime deletes a user and creates it again, and renames another: an event means
// who had the name when it was issued, by every format.
func TestNames_EventsMeanTheirTime(t *testing.T) {
	p := newIDP(t)
	i := installAPI(t)
	i.addIssuer(p, "https://leaver.example.com", "events", `[]`)
	const body = `{"userName":"ada@example.com","externalId":"00u1","active":true}`
	former := i.must("POST", "/scim/v2/Users", i.scim, body)["id"].(string)
	i.raw("DELETE", "/scim/v2/Users/"+former, i.scim, "")
	heir := i.must("POST", "/scim/v2/Users", i.scim, body)["id"].(string)
	renamed := i.createUser("bob@example.com")
	i.patch("/Users/"+renamed, `{"op":"replace","path":"userName","value":"zz-bob@example.com"}`)
	i.sql(`update principal_names set since = since - interval '3 hours', until = until - interval '1 hour'`)
	i.sql(`update principal_names set since = now() - interval '50 minutes' where principal_id = $1`, heir)
	push := func(subject map[string]string, age time.Duration) int {
		t.Helper()
		status, _ := i.push("/t/acme/events", p.sign(t, "secevent+jwt", p.event(sessionRevoked, subject,
			func(claims map[string]any) { claims["iat"] = time.Now().Add(-age).Unix() })))
		return status
	}
	for _, subject := range []map[string]string{
		{"format": "iss_sub", "iss": p.url, "sub": "00u1"}, {"format": "email", "email": "ada@example.com"},
	} {
		if status := push(subject, 2*time.Hour); status != http.StatusAccepted || i.isActive(heir) != true {
			t.Errorf("an event about the former holder of %v answered %d, and the new one's active is %v", subject, status, i.isActive(heir))
		}
	}
	if status := push(map[string]string{"format": "iss_sub", "iss": p.url, "sub": "00u1"}, 30*time.Minute); status != http.StatusAccepted ||
		i.isActive(heir) != false {
		t.Errorf("an event about the new holder answered %d, active %v", status, i.isActive(heir))
	}
	if status := push(map[string]string{"format": "email", "email": "bob@example.com"}, 2*time.Hour); status != http.StatusAccepted ||
		i.isActive(renamed) != false {
		t.Errorf("an event about a user who was renamed since answered %d, active %v", status, i.isActive(renamed))
	}
}

// TestNames_OfUnlistedIssuersAreUnknown checks that such an issuer's sub is neither a name nor an id.
func TestNames_OfUnlistedIssuersAreUnknown(t *testing.T) {
	i := installAPI(t)
	i.must("PATCH", "/v1/tenants/acme", i.operator, fmt.Sprintf(`{"subjectIssuers":[%q],"unknownAgents":"allow"}`, ownIssuer))
	ada := i.createUser("ada@example.com")
	agent := i.clientOf("writer", ada, "client-1", ownIssuer)
	i.patch("/Agents/"+agent, `{"op":"replace","path":"active","value":false}`)
	partner := i.gateway(otherIssuer)
	for _, sub := range []string{"ada@example.com", ada, agent} {
		if status, id := i.claims(partner, sub, ""); status != http.StatusNotFound {
			t.Errorf("the sub %s of an unlisted issuer is %q (%d), want 404", sub, id, status)
		}
		if got := i.evaluate(partner, fmt.Sprintf(`{"subject":{"type":"identity","id":%q},"context":{"agent":%q},`+
			`"action":{"name":"tools/call"},"resource":{"type":"tool","id":"x"}}`, sub, agent)); got == "allow" {
			t.Errorf("the sub %s of an unlisted issuer may act", sub)
		}
	}
	// The agent is known by a client of another issuer: it is suspended, and not unknown.
	if got := i.evaluate(i.platform, fmt.Sprintf(`{"subject":{"type":"user","id":%q},"context":{"agent":"client-1"},`+
		`"action":{"name":"tools/call"},"resource":{"type":"tool","id":"x"}}`, ada)); got == "allow" {
		t.Error("a suspended agent is allowed by its client of another issuer")
	}
}

// TestDecision_OtherTypesThanMCPNeedTheirScope has types that are spelled like those of MCP.
func TestDecision_OtherTypesThanMCPNeedTheirScope(t *testing.T) {
	i := install(t)
	i.apply("  - {when: user.active, scopes: [read, 'edit:own']}\n")
	ada := i.createUser("ada@example.com")
	i.becomes(ada, "scope:edit:own", "scope:read")
	for _, kind := range []string{"task", "resource", "tool", "prompt", "document"} {
		if got := i.ask(entityOf("user", ada), "delete", entityOf(kind, "1")); got != "not_entitled" {
			t.Errorf("delete on a %s: %s, want not_entitled", kind, got)
		}
		if got := i.ask(entityOf("user", ada), "read", entityOf(kind, "1")); got != "allow" {
			t.Errorf("read on a %s: %s, want allow", kind, got)
		}
	}
}
