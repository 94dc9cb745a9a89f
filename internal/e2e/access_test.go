package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/authzen"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// ask requests one evaluation, and returns the reason of the denial, or allow.
func (i *installation) ask(subject, action, resource string) string {
	i.t.Helper()
	status, answer := i.call("POST", "/access/v1/evaluation", i.platform,
		fmt.Sprintf(`{"subject":%s,"action":{"name":%q},"resource":%s}`, subject, action, resource))
	if status != http.StatusOK {
		i.t.Fatalf("the evaluation answered %d %v", status, answer)
	}
	if answer["decision"] == true {
		return string(authzen.Allow)
	}
	reason, _ := answer["context"].(map[string]any)["reason"].(string)
	return reason
}

func agentFor(agent, user string) string {
	return fmt.Sprintf(`{"type":"agent","id":%q,"properties":{"on_behalf_of":%q}}`, agent, user)
}

func entityOf(kind, id string) string { return fmt.Sprintf(`{"type":%q,"id":%q}`, kind, id) }

// TestDecision_GivesReason has one question a row, about an agent of Ada's that holds two keys for
// her, and about an agent of Bob's.
func TestDecision_GivesReason(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	i.apply("  - {group: engineering-prod, team: Engineering, scopes: [deploy, 'note.edit:own']}\n")
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	i.createGroup("engineering-prod", ada)
	agent, other := i.createAgent("outreach", ada), i.createAgent("other", bob)
	i.becomes(ada, "scope:deploy", "scope:note.edit:own", "team:Engineering")
	key := i.hold(p, ada, agent, "key")
	mail := i.must("POST", "/v1/credentials", i.platform, fmt.Sprintf(
		`{"principalId":%q,"agentId":%q,"kind":"api_key","connector":"platform","reference":"mail","scopes":["mail.send"]}`,
		ada, agent))["id"].(string)
	mallory := i.createUser(ada) // her name is Ada's id
	i.createGroup("engineering-prod", mallory)
	i.becomes(mallory, "scope:deploy", "scope:note.edit:own", "team:Engineering")
	_, otherSCIM, _ := i.newTenant("umbrella")
	foreign := i.must("POST", "/scim/v2/Users", otherSCIM, `{"userName":"eve","active":true}`)["id"].(string)
	foreignAgent := i.must("POST", "/scim/v2/Agents", otherSCIM,
		fmt.Sprintf(`{"agentUserName":"evebot","owners":[{"value":%q}]}`, foreign))["id"].(string)
	expired := i.must("POST", "/scim/v2/Agents", i.scim, fmt.Sprintf(`{"agentUserName":"temp","owners":[{"value":%q}],`+
		`"urn:leaver:params:scim:schemas:extension:validity:1.0:Agent":{"validUntil":"2020-01-01T00:00:00Z"}}`,
		ada))["id"].(string)

	outreach := agentFor(agent, ada)
	for _, row := range []struct {
		name, subject, action, resource, want string
	}{
		{"a credential that the agent holds for the user", outreach, "read", entityOf("credential", key), "allow"},
		{"by names", agentFor("Outreach", "ADA@example.com"), "read", entityOf("credential", key), "allow"},
		{"a credential's own scope", outreach, "mail.send", entityOf("credential", mail), "allow"},
		{"a scope that the credential lacks", outreach, "mail.read", entityOf("credential", mail), "scope_missing"},
		{"a credential, for another user", agentFor(agent, bob), "read", entityOf("credential", key), "unknown_credential"},
		{"another agent's credential", agentFor(other, ada), "read", entityOf("credential", key), "unknown_credential"},
		{"a credential with an invalid id", outreach, "read", entityOf("credential", "' or true"), "unknown_credential"},
		{"a connector", outreach, "read", entityOf("connector", "platform"), "allow"},
		{"a connector without a credential", outreach, "read", entityOf("connector", "crm"), "no_credential"},
		{"a team", outreach, "deploy", entityOf("team", "Engineering"), "allow"},
		{"a team that the user is not on", outreach, "deploy", entityOf("team", "Sales"), "not_entitled"},
		{"a scope", outreach, "deploy", entityOf("service", "api"), "allow"},
		{"a scope that the user lacks", outreach, "launch", entityOf("service", "api"), "not_entitled"},
		{
			"an own scope on the user's resource", outreach, "note.edit",
			`{"type":"note","id":"1","properties":{"ownerID":"Ada@example.com"}}`, "allow",
		},
		{
			"an own scope on another user's resource", outreach, "note.edit",
			`{"type":"note","id":"1","properties":{"ownerID":"bob@example.com"}}`, "not_entitled",
		},
		{
			"an agent for a user who is not its owner", agentFor(other, ada), "deploy", entityOf("service", "api"), "not_delegated",
		},
		{
			"an own scope of a user named like the owner's id", entityOf("user", mallory), "note.edit",
			fmt.Sprintf(`{"type":"note","id":"1","properties":{"ownerID":%q}}`, ada), "not_entitled",
		},
		{
			"a credential, spelled differently", outreach, "read", entityOf(" Credential", uuid.NewString()), "unknown_credential",
		},
		{"a connector, spelled differently", outreach, "read", entityOf("CONNECTOR", "crm"), "no_credential"},
		{"the user itself", entityOf("user", ada), "deploy", entityOf("service", "api"), "allow"},
		{"an agent for itself", entityOf("agent", agent), "deploy", entityOf("service", "api"), "not_entitled"},
		{"an unknown agent", agentFor("nobody", ada), "deploy", entityOf("service", "api"), "unknown_subject"},
		{"for an unknown user", agentFor(agent, "nobody"), "deploy", entityOf("service", "api"), "unknown_principal"},
		{"a user as subject of type agent", agentFor(ada, ada), "deploy", entityOf("service", "api"), "unknown_subject"},
		{"an unknown subject type", entityOf("workload", "x"), "deploy", entityOf("service", "api"), "unknown_subject"},
		{"another tenant's agent", agentFor(foreignAgent, foreign), "deploy", entityOf("service", "api"), "unknown_subject"},
		{"for another tenant's user", agentFor(agent, foreign), "deploy", entityOf("service", "api"), "unknown_principal"},
		{"an expired agent", agentFor(expired, ada), "deploy", entityOf("service", "api"), "agent_expired"},
	} {
		t.Run(row.name, func(t *testing.T) {
			i.t = t
			if got := i.ask(row.subject, row.action, row.resource); got != row.want &&
				(row.want != "agent_expired" || got != "agent_suspended") {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
	i.t = t
}

// TestDecision_DeniesFromCommitOnWithoutWorker checks that decisions follow the committed
// deactivation before any worker runs.
func TestDecision_DeniesFromCommitOnWithoutWorker(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	agent := i.createAgent("outreach", ada)
	shared := i.must("POST", "/scim/v2/Agents", i.scim,
		fmt.Sprintf(`{"agentUserName":"shared","owners":[{"value":%q},{"value":%q}]}`, ada, bob))["id"].(string)
	key, own := entityOf(
		"credential",
		i.hold(p, ada, agent, "key"),
	), entityOf(
		"credential",
		i.hold(p, agent, agent, "own"),
	)
	bobs := entityOf("credential", i.hold(p, bob, shared, "bobs"))
	for subject, resource := range map[string]string{
		agentFor(agent, ada): key, entityOf("agent", agent): own, agentFor(shared, bob): bobs,
	} {
		if got := i.ask(subject, "read", resource); got != "allow" {
			t.Fatalf("before: %s", got)
		}
	}
	i.deactivate(ada)
	// An agent without an owner is denied for that reason, before its principal is checked.
	for _, row := range []struct{ subject, resource, want string }{
		{agentFor(agent, ada), key, "owner_gone"},
		{entityOf("agent", agent), own, "owner_gone"},
		{agentFor(shared, ada), bobs, "principal_restricted"},
		{agentFor(shared, bob), bobs, "allow"},
		{entityOf("user", ada), key, "principal_restricted"},
	} {
		if got := i.ask(row.subject, "read", row.resource); got != row.want {
			t.Errorf("%s: %s, want %s", row.subject, got, row.want)
		}
	}
	i.work()
	i.closed(ada)
	if got := i.ask(agentFor(agent, ada), "read", key); got != "agent_suspended" {
		t.Errorf("after the cascade: %s", got)
	}
}

// TestDecision_DeniesLostEntitlementFromCommitOn stops the workers before the entitlements are
// lost.
func TestDecision_DeniesLostEntitlementFromCommitOn(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	i.apply("  - {group: engineering-prod, team: Engineering, scopes: [deploy]}\n" +
		"  - {when: user.userType == 'staff', scopes: [read]}\n  - {group: frozen, deny: true, scopes: [deploy]}\n")
	var users []string
	for _, name := range []string{"quits", "moves", "renamed", "frozen", "deleted", "stays"} {
		users = append(users, i.must("POST", "/scim/v2/Users", i.scim,
			fmt.Sprintf(`{"userName":%q,"userType":"staff","active":true}`, name))["id"].(string))
	}
	group, inner := i.createGroup(
		"engineering-prod",
		users[0],
		users[1],
		users[3],
		users[5],
	), i.createGroup(
		"squad",
		users[4],
	)
	renamed := i.createGroup("Engineering-prod", users[2])
	i.join(group, inner)
	frozen := i.createGroup("frozen")
	items := make([]string, len(users))
	for n, id := range users {
		i.becomes(id, "scope:deploy", "scope:read", "team:Engineering")
		items[n] = i.mustGrant(p, id, "key-"+id, "team:Engineering")
	}
	i.stopWork()
	i.quit(group, users[0])
	i.patch("/Users/"+users[1], `{"op":"replace","path":"userType","value":"guest"}`)
	i.patch("/Groups/"+renamed, `{"op":"replace","path":"displayName","value":"sales"}`)
	i.join(frozen, users[3])
	i.raw("DELETE", "/scim/v2/Groups/"+inner, i.scim, "")
	for n, want := range []struct{ deploy, read, team, credential string }{
		{"entitlement", "allow", "entitlement", "entitlement_lost"},
		{"allow", "entitlement", "allow", "allow"},
		{"entitlement", "allow", "entitlement", "entitlement_lost"},
		{"entitlement", "allow", "entitlement", "allow"},
		{"entitlement", "allow", "entitlement", "entitlement_lost"},
		{"allow", "allow", "allow", "allow"},
	} {
		subject := entityOf("user", users[n])
		for _, question := range []struct{ action, resource, want string }{
			{"deploy", entityOf("service", "api"), want.deploy},
			{"read", entityOf("service", "api"), want.read},
			{"deploy", entityOf("team", "Engineering"), want.team},
			{"use", entityOf("credential", items[n]), want.credential},
		} {
			if got := i.ask(subject, question.action, question.resource); got != question.want &&
				(question.want != "entitlement" || (got != "entitlement_lost" && got != "not_entitled")) {
				t.Errorf("user %d, %s on %s: %s, want %s", n, question.action, question.resource, got, question.want)
			}
		}
	}
	status := i.must("GET", "/v1/principals/"+users[0]+"/access", i.platform, "")
	if got := fmt.Sprint(status["entitlements"]); got != "[scope:read]" {
		t.Errorf("the entitlements after leaving the group are %s, want [scope:read]", got)
	}
	i.work()
	i.becomes(users[0], "scope:read")
	stacktest.Eventually(t, 20*time.Second, "no invalidations left", func() bool {
		var left int
		err := i.app.DB.InTenant(t.Context(), i.tenant.ID, func(tx pgx.Tx) error {
			return tx.QueryRow(t.Context(), `select count(*) from invalidations where tenant_id = $1`, i.tenant.ID).Scan(&left)
		})
		return err == nil && left == 0
	})
}

func TestDecision_DeniesEndedCredentialAndLostEntitlement(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	i.apply(engineering)
	ada := i.createUser("ada@example.com")
	group := i.createGroup("engineering-prod", ada)
	i.becomes(ada, "role:developer", "scope:deploy", "team:Engineering")
	released := i.hold(p, ada, "", "released")
	granted := i.mustGrant(p, ada, "granted", "team:Engineering")
	i.raw("DELETE", "/v1/credentials/"+released, i.platform, "")
	i.quit(group, ada)
	i.becomes(ada)
	for _, row := range []struct{ resource, want string }{
		{entityOf("credential", released), "credential_ended"},
		{entityOf("credential", granted), "entitlement_lost"},
		{entityOf("team", "Engineering"), "entitlement_lost"},
		{entityOf("service", "api"), "entitlement_lost"},
	} {
		if got := i.ask(entityOf("user", ada), "deploy", row.resource); got != row.want {
			t.Errorf("%s: %s, want %s", row.resource, got, row.want)
		}
	}
}

func TestEvaluation_RejectsMalformedRequests(t *testing.T) {
	i := installAPI(t)
	for name, body := range map[string]string{
		"invalid JSON": `{`, "an empty body": ``, "a list": `[]`, "a subject that is a string": `{"subject":"x","action":{"name":"a"},"resource":{"type":"t","id":"1"}}`,
		"no subject":            `{"action":{"name":"a"},"resource":{"type":"t","id":"1"}}`,
		"no id":                 `{"subject":{"type":"user"},"action":{"name":"a"},"resource":{"type":"t","id":"1"}}`,
		"a numeric action name": `{"subject":{"type":"user","id":"x"},"action":{"name":1},"resource":{"type":"t","id":"1"}}`,
		"numeric on_behalf_of":  `{"subject":{"type":"agent","id":"x","properties":{"on_behalf_of":1}},"action":{"name":"a"},"resource":{"type":"t","id":"1"}}`,
		"two subjects":          `{"subject":{"type":"user","id":"x"},"subject":{"type":"user","id":"y"},"action":{"name":"a"},"resource":{"type":"t","id":"1"}}`,
		"two on_behalf_of":      `{"subject":{"type":"agent","id":"x","properties":{"on_behalf_of":"y","on_behalf_of":null}},"action":{"name":"a"},"resource":{"type":"t","id":"1"}}`,
		"an own action":         `{"subject":{"type":"user","id":"x"},"action":{"name":"note.edit:own"},"resource":{"type":"t","id":"1"}}`,
		"deep nesting":          `{"context":` + strings.Repeat(`[`, 100) + strings.Repeat(`]`, 100) + `}`,
		"a null byte":           `{"subject":{"type":"user","id":"x\u0000"},"action":{"name":"a"},"resource":{"type":"t","id":"1"}}`,
	} {
		if status, raw := i.raw("POST", "/access/v1/evaluation", i.platform, body); status != http.StatusBadRequest ||
			!json.Valid(raw) {
			t.Errorf("%s answered %d %s", name, status, raw)
		}
	}
	for name, token := range map[string]string{"no token": "", "a SCIM token": i.scim, "an operator token": i.operator} {
		if status, _ := i.raw("POST", "/access/v1/evaluation", token, `{}`); status != http.StatusUnauthorized {
			t.Errorf("%s answered %d", name, status)
		}
	}
}

// TestEvaluation_FollowsTheSpecificationLiterally has requests that a lenient reader would answer
// otherwise (AuthZEN 1.0, by section).
func TestEvaluation_FollowsTheSpecificationLiterally(t *testing.T) {
	i := install(t)
	i.apply("  - {when: user.active, scopes: [read, \"edit:own\"]}\n")
	ada := i.createUser("ada@example.com")
	i.becomes(ada, "scope:edit:own", "scope:read")
	subject := fmt.Sprintf(`"subject":{"type":"user","id":%q}`, ada)
	const read, page = `"action":{"name":"read"}`, `"resource":{"type":"page","id":"1"}`
	for name, row := range map[string]struct {
		body   string
		status int
		want   any // of a decision
	}{
		"10.1.1: Subject is not subject":   {`{` + strings.Replace(subject, "subject", "Subject", 1) + `,` + read + `,` + page + `}`, 400, nil},
		"10.1.1: Action is not action":     {`{` + subject + `,"Action":{"name":"read"},` + page + `}`, 400, nil},
		"10.1.1: Resource is not resource": {`{` + subject + `,` + read + `,"Resource":{"type":"page","id":"1"}}`, 400, nil},
		"10.1.1: ID is not id":             {`{"subject":{"type":"user","ID":"` + ada + `"},` + read + `,` + page + `}`, 400, nil},
		"10.1.1: an unknown Subject beside subject": {
			`{"Subject":{"type":"user","id":"eve"},` + subject + `,` + read + `,` + page + `}`, 200, true,
		},
		"10.1.1: members of the context": {`{` + subject + `,` + read + `,` + page + `,"context":{"path":"/a","PATH":"/b"}}`, 200, true},
		"RFC 8259 section 7: an escaped name": {
			`{"s\u0075bject":{"type":"user","id":"` + ada + `"},` + read + `,` + page + `,"context":{"caf\u00e9":1}}`, 200, true,
		},
		"RFC 8259 section 4: an escaped duplicate": {`{"s\u0075bject":{"type":"user","id":"eve"},` + subject + `,` + read + `,` + page + `}`, 400, nil},
		"5.4: a context that is a string":          {`{` + subject + `,` + read + `,` + page + `,"context":"x"}`, 400, nil},
		"5.4: a context that is a list":            {`{` + subject + `,` + read + `,` + page + `,"context":[]}`, 400, nil},
		"5.3: action properties that are a string": {`{` + subject + `,"action":{"name":"read","properties":"x"},` + page + `}`, 400, nil},
		"5.2: an owner that is a number": {
			`{` + subject + `,"action":{"name":"edit"},"resource":{"type":"page","id":"1","properties":{"ownerID":4711}}}`, 200, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			status, raw := i.raw("POST", "/access/v1/evaluation", i.platform, row.body)
			var answer map[string]any
			_ = json.Unmarshal(raw, &answer)
			if status != row.status || (row.want != nil && answer["decision"] != row.want) {
				t.Errorf("%s answered %d %s, want %d %v", row.body, status, raw, row.status, row.want)
			}
		})
	}
	agent := i.createAgent("writer", ada)
	for name, row := range map[string]struct {
		top, item string
		want      bool
	}{
		"7.1.1: a complete other subject is the item's own": {
			`"subject":{"type":"agent","id":"` + agent + `","properties":{"on_behalf_of":"` + ada + `"}}`, subject, true,
		},
		"7.1.1: whole objects replace": {subject, `"resource":{"type":"page"}`, false},
	} {
		body := `{` + row.top + `,` + read + `,` + page + `,"evaluations":[{` + row.item + `}]}`
		items := i.must("POST", "/access/v1/evaluations", i.platform, body)["evaluations"].([]any)
		if got := items[0].(map[string]any)["decision"]; got != row.want {
			t.Errorf("%s: %s answered %v, want %t", name, body, items, row.want)
		}
	}
}

// TestEvaluation_AnswersOfTheProtocol checks what a gateway's HTTP client relies on.
func TestEvaluation_AnswersOfTheProtocol(t *testing.T) {
	i := installAPI(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, i.url+"/access/v1/evaluation", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+i.platform)
	req.Header.Set("X-Request-ID", strings.Repeat("x", 600))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != http.MethodPost {
		t.Errorf("GET answered %d with Allow %q, want 405 with POST", resp.StatusCode, resp.Header.Get("Allow"))
	}
	if resp.Header.Get("X-Request-ID") != strings.Repeat("x", 600) {
		t.Error("a long X-Request-ID is not returned")
	}
	inner, err := http.NewRequestWithContext(t.Context(), http.MethodPut, i.url+"/v1/tenants/acme/holds", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	inner.Header.Set("Authorization", "Bearer "+i.operator)
	within, err := http.DefaultClient.Do(inner)
	if err != nil {
		t.Fatal(err)
	}
	defer within.Body.Close()
	if within.StatusCode != http.StatusMethodNotAllowed || within.Header.Get("Allow") != http.MethodGet {
		t.Errorf("PUT of holds answered %d with Allow %q, want 405 with GET", within.StatusCode, within.Header.Get("Allow"))
	}
	metadata, err := http.Get(i.url + "/.well-known/authzen-configuration")
	if err != nil {
		t.Fatal(err)
	}
	defer metadata.Body.Close()
	if got := metadata.Header.Get("Cache-Control"); got != "public, max-age=3600" {
		t.Errorf("the metadata has Cache-Control %q", got)
	}
}

func TestEvaluations_ApplyDefaultsAndSemantics(t *testing.T) {
	i := install(t)
	i.apply("  - {when: user.active, scopes: [read]}\n")
	ada := i.createUser("ada@example.com")
	i.becomes(ada, "scope:read")
	allow, deny := map[string]any{"decision": true},
		map[string]any{"decision": false, "context": map[string]any{"reason": "not_entitled"}}
	const items = `{"action":{"name":"write"}},{},{"resource":{"type":"page","id":"2"}}`
	for _, row := range []struct {
		body string
		want []any
	}{
		{`"evaluations":[` + items + `]`, []any{deny, allow, allow}},
		{`"evaluations":[` + items + `],"options":{"evaluations_semantic":"deny_on_first_deny"}`, []any{deny}},
		{`"evaluations":[` + items + `],"options":{"evaluations_semantic":"permit_on_first_permit"}`, []any{deny, allow}},
		{`"evaluations":[{"subject":7},{}]`, []any{map[string]any{"decision": false, "context": map[string]any{
			"error": map[string]any{"status": 400.0, "message": "subject has the wrong type or format"},
		}}, allow}},
	} {
		answer := i.must("POST", "/access/v1/evaluations", i.platform, fmt.Sprintf(
			`{"subject":{"type":"user","id":%q},"action":{"name":"read"},"resource":{"type":"page","id":"1"},%s}`,
			ada,
			row.body,
		))
		if diff := cmp.Diff(row.want, answer["evaluations"]); diff != "" {
			t.Errorf("%s: %s", row.body, diff)
		}
	}
	single := i.must("POST", "/access/v1/evaluations", i.platform,
		fmt.Sprintf(`{"subject":{"type":"user","id":%q},"action":{"name":"read"},"resource":{"type":"page","id":"1"}}`, ada))
	if diff := cmp.Diff(allow, single); diff != "" {
		t.Errorf("without evaluations: %s", diff)
	}
}

func TestAccess_ServesMetadataAndEchoesRequestID(t *testing.T) {
	i := installAPI(t)
	metadata := i.must("GET", "/.well-known/authzen-configuration", "", "")
	want := map[string]any{
		"policy_decision_point": i.url, "access_evaluation_endpoint": i.url + "/access/v1/evaluation",
		"access_evaluations_endpoint": i.url + "/access/v1/evaluations",
		"search_resource_endpoint":    i.url + "/access/v1/search/resource",
		"search_subject_endpoint":     i.url + "/access/v1/search/subject",
	}
	if diff := cmp.Diff(want, metadata); diff != "" {
		t.Error(diff)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		i.url+"/access/v1/evaluation", bytes.NewBufferString(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Request-ID", "bfe9eb29")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := resp.Header.Get("X-Request-ID"); got != "bfe9eb29" {
		t.Errorf("X-Request-ID is %q, want bfe9eb29", got)
	}
}

func TestDecide_FailsWithoutPostgreSQL(t *testing.T) {
	db, err := database.Open(t.Context(), "postgres://leaver@127.0.0.1:1/none?connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	reasons, err := authzen.NewStore(db, nil).Decide(t.Context(), uuid.New(), authzen.Question{
		SubjectType: "User", Subject: "ada", Action: "a", ResourceType: "t", Resource: "1",
	})
	if !errors.Is(err, database.ErrUnavailable) || reasons != nil {
		t.Errorf("decided %v, %v; want no decision and ErrUnavailable", reasons, err)
	}
}

// TestDecide_AThousandAtOnce has a gateway that asks a thousand questions at a time: each is decided, or refused for now;
// none is allowed for a user who has left.
func TestDecide_AThousandAtOnce(t *testing.T) {
	i := install(t)
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	i.apply("  - {when: user.active, scopes: [read]}\n")
	i.becomes(ada, "scope:read")
	i.becomes(bob, "scope:read")
	i.deactivate(bob)
	var mu sync.Mutex
	answers := make(map[string]int)
	var all sync.WaitGroup
	for n := range 1000 {
		user, name := ada, "ada"
		if n%2 == 1 {
			user, name = bob, "bob"
		}
		all.Go(func() {
			status, raw := i.raw("POST", "/access/v1/evaluation", i.platform, fmt.Sprintf(
				`{"subject":{"type":"user","id":%q},"action":{"name":"read"},"resource":{"type":"page","id":"1"}}`, user))
			var answer struct{ Decision *bool }
			_ = json.Unmarshal(raw, &answer)
			text := fmt.Sprint(name, " ", status)
			if answer.Decision != nil {
				text += fmt.Sprint(" ", *answer.Decision)
			}
			mu.Lock()
			defer mu.Unlock()
			answers[text]++
		})
	}
	all.Wait()
	for text := range answers {
		if !slices.Contains([]string{"ada 200 true", "bob 200 false", "ada 503", "bob 503", "ada 429", "bob 429"}, text) {
			t.Errorf("the answers are %v", answers)
		}
	}
	if answers["ada 200 true"] == 0 || answers["bob 200 false"] == 0 {
		t.Errorf("the answers are %v, want some decisions", answers)
	}
}

func TestStanding_IsNotModifiedWhileUnchanged(t *testing.T) {
	i := install(t)
	i.apply("  - {when: user.active, role: staff}\n")
	ada := i.createUser("ada@example.com")
	i.becomes(ada, "role:staff")
	get := func(tag string) (status int, etag string, body map[string]any) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			i.url+"/v1/principals/"+ada+"/access", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+i.platform)
		req.Header.Set("If-None-Match", tag)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		_ = json.NewDecoder(resp.Body).Decode(&body) // a 304 has no body
		return resp.StatusCode, resp.Header.Get("ETag"), body
	}
	_, tag, body := get("")
	want := map[string]any{"id": ada, "type": "User", "status": "active", "entitlements": []any{"role:staff"}}
	if !cmp.Equal(body, want) {
		t.Errorf("the status is %v", body)
	}
	if status, _, _ := get(tag); status != http.StatusNotModified {
		t.Errorf("an unchanged status answered %d, want 304", status)
	}
	i.deactivate(ada)
	status, _, body := get(tag)
	if status != http.StatusOK || body["status"] != "restricted" || body["reason"] != "principal_restricted" ||
		len(body["entitlements"].([]any)) != 0 {
		t.Errorf("after she left: %d %v", status, body)
	}
	_, _, foreign := i.newTenant("umbrella")
	if status, _ = i.call("GET", "/v1/principals/"+ada+"/access", foreign, ""); status != http.StatusNotFound {
		t.Errorf("another tenant's token answered %d", status)
	}
}

// TestEvaluation_InteropScenario is the todo application of AuthZEN's interoperability events,
// with its users, actions and decisions, and its roles as groups.
func TestEvaluation_InteropScenario(t *testing.T) {
	i := install(t)
	i.apply(`  - {when: user.active, scopes: [can_read_user, can_read_todos]}
  - {group: admin, role: admin, scopes: [can_create_todo, can_delete_todo]}
  - {group: editor, role: editor, scopes: [can_create_todo, "can_update_todo:own", "can_delete_todo:own"]}
  - {group: evil_genius, role: evil_genius, scopes: [can_update_todo]}
`)
	const rick, morty, summer, beth, jerry = "rick@the-citadel.com", "morty@the-citadel.com", "summer@the-smiths.com",
		"beth@the-smiths.com", "jerry@the-smiths.com"
	ids := make(map[string]string)
	for _, name := range []string{rick, morty, summer, beth, jerry} {
		ids[name] = i.createUser(name)
	}
	i.createGroup("admin", ids[rick])
	i.createGroup("evil_genius", ids[rick])
	i.createGroup("editor", ids[morty], ids[summer])
	i.becomes(ids[rick], "role:admin", "role:evil_genius", "scope:can_create_todo", "scope:can_delete_todo",
		"scope:can_read_todos", "scope:can_read_user", "scope:can_update_todo")
	editor := []string{
		"role:editor", "scope:can_create_todo", "scope:can_delete_todo:own",
		"scope:can_read_todos", "scope:can_read_user", "scope:can_update_todo:own",
	}
	i.becomes(ids[morty], editor...)
	i.becomes(ids[summer], editor...)
	i.becomes(ids[beth], "scope:can_read_todos", "scope:can_read_user")
	i.becomes(ids[jerry], "scope:can_read_todos", "scope:can_read_user")

	todo := func(owner string) string {
		return fmt.Sprintf(`{"type":"todo","id":"7240d0db-8ff0-41ec-98b2-34a096273b92","properties":{"ownerID":%q}}`, owner)
	}
	for _, row := range []struct {
		subject                                                     string
		create, updateRicks, updateOther, deleteRicks, deleteOthers bool
		other                                                       string
	}{
		{rick, true, true, true, true, true, morty},
		{morty, true, false, true, false, true, morty},
		{summer, true, false, true, false, true, summer},
		{beth, false, false, false, false, false, beth},
		{jerry, false, false, false, false, false, jerry},
	} {
		for _, question := range []struct {
			action, resource string
			want             bool
		}{
			{"can_read_user", entityOf("user", beth), true},
			{"can_read_user", entityOf("user", row.subject), true},
			{"can_read_todos", entityOf("todo", "todo-1"), true},
			{"can_create_todo", entityOf("todo", "todo-1"), row.create},
			{"can_update_todo", todo(rick), row.updateRicks},
			{"can_update_todo", todo(row.other), row.updateOther},
			{"can_delete_todo", todo(rick), row.deleteRicks},
			{"can_delete_todo", todo(row.other), row.deleteOthers},
		} {
			if got := i.ask(entityOf("user", ids[row.subject]),
				question.action, question.resource); (got == "allow") != question.want {
				t.Errorf("%s %s %s: %s, want %t", row.subject, question.action, question.resource, got, question.want)
			}
		}
	}
	for subject, want := range map[string][]bool{rick: {true, true}, morty: {false, true}, jerry: {false, false}} {
		second := jerry
		if subject == morty {
			second = morty
		}
		answer := i.must("POST", "/access/v1/evaluations", i.platform, fmt.Sprintf(
			`{"subject":{"type":"user","id":%q},"action":{"name":"can_update_todo"},"resource":{},"context":{},`+
				`"evaluations":[{"resource":%s},{"resource":%s}]}`, ids[subject], todo(rick), todo(second)))
		var got []bool
		for _, d := range answer["evaluations"].([]any) {
			got = append(got, d.(map[string]any)["decision"].(bool))
		}
		if !cmp.Equal(got, want) {
			t.Errorf("%s's batch: %v, want %v", subject, got, want)
		}
	}
}
