package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/auth"
)

// walk returns all items of a list, read in pages of limit.
func (i *installation) walk(path string, limit int) (items []map[string]any) {
	i.t.Helper()
	for cursor := ""; ; {
		page := i.must("GET", fmt.Sprintf("%s?limit=%d&cursor=%s", path, limit, url.QueryEscape(cursor)), i.operator, "")
		for _, item := range page["items"].([]any) {
			items = append(items, item.(map[string]any))
		}
		next, _ := page["nextCursor"].(string)
		if next == "" {
			return items
		}
		cursor = next
	}
}

// TestAudit_RecordsWhatOperatorsDo checks that the audit log has each act's actor and verb, and the
// state before and after.
func TestAudit_RecordsWhatOperatorsDo(t *testing.T) {
	i := installAPI(t)
	p := newIDP(t)
	schema := `{"resourceType":"User","schema":{"id":"urn:example:1.0:User","name":"Claims","description":"x","attributes":[` +
		`{"name":"team","type":"string","multiValued":false,"description":"x","required":false,"caseExact":false,` +
		`"mutability":"readWrite","returned":"default","uniqueness":"none"}]}}`
	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"thresholdLeavers":10}`)
	token := i.must("POST", "/v1/tenants/acme/tokens", i.operator, `{"class":"scim","description":"a new IdP"}`)
	i.raw("DELETE", "/v1/tenants/acme/tokens/"+token["id"].(string), i.operator, "")
	issuer := i.addIssuer(p, "leaver", "scim", `["sub=x"]`)
	i.raw("DELETE", "/v1/tenants/acme/issuers/"+issuer, i.operator, "")
	i.must("PUT", "/v1/tenants/acme/schemas/"+url.PathEscape("urn:example:1.0:User"), i.operator, schema)
	i.raw("DELETE", "/v1/tenants/acme/schemas/"+url.PathEscape("urn:example:1.0:User"), i.operator, "")
	i.must("POST", "/v1/operator-tokens", i.operator, `{"class":"operator"}`)

	acts := i.walk("/v1/tenants/acme/acts", 2)
	var verbs []string
	for _, a := range acts {
		if !strings.HasPrefix(a["actor"].(string), "operator-token/") {
			continue // done by the test directly in the database
		}
		verbs = append(verbs, a["verb"].(string))
	}
	want := []string{
		"tenant.configure", "token.issue", "token.revoke", "issuer.add", "issuer.remove", "schema.put", "schema.delete",
	}
	if !slices.Equal(verbs, want) {
		t.Errorf("the audit log has %v, want %v", verbs, want)
	}
	for _, a := range acts {
		if a["verb"] == "tenant.configure" {
			before, after := a["before"].(map[string]any), a["after"].(map[string]any)
			if before["thresholdLeavers"] != nil || after["thresholdLeavers"] != 10.0 {
				t.Errorf("before %v, after %v", before, after)
			}
		}
		if strings.Contains(fmt.Sprint(a), token["secret"].(string)) {
			t.Error("the audit log contains a secret")
		}
	}
	of := i.walk("/v1/acts", 500)
	if last := of[len(of)-1]; last["verb"] != "token.issue" ||
		!strings.HasPrefix(last["actor"].(string), "operator-token/") {
		t.Errorf("the installation's last act is %v, want token.issue by an operator token", last)
	}
	tokens := i.walk("/v1/operator-tokens", 500)
	if by, _ := tokens[len(tokens)-1]["createdBy"].(string); !strings.HasPrefix(by, "operator-token/") {
		t.Errorf("the token was created by %q", by)
	}
	conn, err := pgx.Connect(t.Context(), i.cfg.Database.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	for _, sql := range []string{`update admin_acts set actor = 'x'`, `delete from admin_acts`, `truncate admin_acts`} {
		if _, err := conn.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s succeeded", sql)
		}
	}
}

// TestThreshold_IsLoosenedByAnApproverAlone checks that an operator may set and tighten a threshold,
// and that only an approver may loosen it.
func TestThreshold_IsLoosenedByAnApproverAlone(t *testing.T) {
	i := installAPI(t)
	approver := i.token(uuid.Nil, auth.ClassApprover)
	for n, c := range []struct {
		token, body string
		want        int
	}{
		{i.operator, `{"thresholdLeavers":10,"thresholdShare":0.5,"thresholdWindowSeconds":3600}`, http.StatusOK}, // sets it
		{i.operator, `{"thresholdLeavers":0}`, http.StatusForbidden},
		{i.operator, `{"thresholdLeavers":11}`, http.StatusForbidden},
		{i.operator, `{"thresholdShare":0}`, http.StatusForbidden},
		{i.operator, `{"thresholdShare":0.6}`, http.StatusForbidden},
		{i.operator, `{"thresholdWindowSeconds":60}`, http.StatusForbidden},
		// tightens it
		{i.operator, `{"thresholdLeavers":5,"thresholdShare":0.4,"thresholdWindowSeconds":7200,"profile":"okta"}`, http.StatusOK},
		{approver, `{"profile":"default"}`, http.StatusForbidden},
		{approver, `{"thresholdLeavers":0,"thresholdShare":0,"thresholdWindowSeconds":60}`, http.StatusOK},
		{i.scim, `{"thresholdLeavers":1}`, http.StatusUnauthorized},
		{i.platform, `{"thresholdLeavers":1}`, http.StatusUnauthorized},
	} {
		if status, answer := i.call("PATCH", "/v1/tenants/acme", c.token, c.body); status != c.want {
			t.Errorf("%d: %s answered %d %v, want %d", n, c.body, status, answer, c.want)
		}
	}
}

func TestApprovers_AreOutOfOperatorsReach(t *testing.T) {
	i := installAPI(t)
	of, secret, err := i.app.Auth().Issue(t.Context(), uuid.Nil, auth.NewToken{Class: auth.ClassApprover})
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range i.walk("/v1/operator-tokens", 500) {
		if token["class"] == "approver" {
			t.Error("operators list approvers' tokens")
		}
	}
	if status, _ := i.raw("DELETE", "/v1/operator-tokens/"+of.ID.String(), i.operator, ""); status != http.StatusNotFound {
		t.Errorf("revoking an approver's token was answered %d, want 404", status)
	}
	if status, _ := i.call("POST", "/v1/tenants/acme/holds/approve", secret,
		`{"reason":"x"}`); status != http.StatusConflict { // no deactivation is held
		t.Errorf("the approver was answered %d, want 409", status)
	}
	if err := i.app.Auth().Revoke(t.Context(), uuid.Nil, of.ID, auth.ClassApprover); err != nil {
		t.Errorf("revoking it directly in the database: %v", err)
	}
}

// TestActs_PageToTheEnd checks that a waiver after hundreds of retries is on the last page.
func TestActs_PageToTheEnd(t *testing.T) {
	i := installAPI(t)
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	cascade := i.cascades(ada)[0]
	i.sql(`insert into acts (tenant_id, event_id, actor, verb, reason)
		select $1, $2, 'operator-token/x', 'retry', n::text from generate_series(1, 512) n`, i.tenant.ID, cascade.ID)
	i.sql(`insert into acts (tenant_id, event_id, actor, verb, reason)
		values ($1, $2, 'operator-token/x', 'waive', 'HIDDEN WAIVER')`, i.tenant.ID, cascade.ID)
	for _, limit := range []int{100, 500} {
		acts := i.walk("/v1/tenants/acme/cascades/"+cascade.ID.String()+"/acts", limit)
		if len(acts) != 513 || acts[512]["reason"] != "HIDDEN WAIVER" {
			t.Errorf("with pages of %d: %d acts", limit, len(acts))
		}
	}
}

// TestHistory_NamesWhoRegisteredAndReleased checks that the history of a credential names the token
// that registered and the token that released it.
func TestHistory_NamesWhoRegisteredAndReleased(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "key")
	if status, _ := i.raw("DELETE", "/v1/credentials/"+id, i.platform, ""); status != http.StatusNoContent {
		t.Fatal(status)
	}
	item := i.must("GET", "/v1/tenants/acme/credentials/"+id, i.operator, "")
	history := item["history"].([]any)
	if len(history) != 2 {
		t.Fatalf("history: %v", history)
	}
	for n, state := range []string{"live", "released"} {
		h := history[n].(map[string]any)
		if actor, _ := h["actor"].(string); h["state"] != state || !strings.HasPrefix(actor, "platform-token/") {
			t.Errorf("%s by %q, want by the platform's token", h["state"], actor)
		}
	}
}

// TestExpires_IsTakenOfShortLivedTokensOnly checks that a platform's response "expires" is accepted
// only for tokens that expire soon; any other credential is a survivor.
func TestExpires_IsTakenOfShortLivedTokensOnly(t *testing.T) {
	long(t)
	for name, c := range map[string]struct {
		kind, expires string
		want          string
	}{
		"a token, within hours":     {"access_token", "3 hours", "expiring"},
		"a token, in days":          {"access_token", "3 days", "failed"},
		"a token, at no known time": {"access_token", "", "failed"},
		"a key":                     {"api_key", "1 hour", "failed"},
		"an account":                {"service_account", "1 hour", "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t)
			i := install(t, withConnectors(p.connector()))
			p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
				if kind == "credential.revoke" {
					_, _ = w.Write([]byte(`{"outcome":"expires"}`))
				}
				return kind == "credential.revoke"
			})
			ada := i.createUser("ada@example.com")
			p.issue("x")
			id := i.must("POST", "/v1/credentials", i.platform,
				fmt.Sprintf(`{"principalId":%q,"kind":%q,"connector":"platform","reference":"x"}`, ada, c.kind))["id"].(string)
			if c.expires != "" {
				i.sql(`update credentials set expires_at = now() + $2::interval where id = $1`, id, c.expires)
			}
			i.deactivate(ada)
			i.closed(ada)
			if got := i.state(id); got != c.want {
				t.Errorf("the item is %s, want %s", got, c.want)
			}
		})
	}
}

// TestExpiring_IsProbedOnceItsExpiryHasPassed checks that a credential that is alive after its expiry
// becomes a survivor.
func TestExpiring_IsProbedOnceItsExpiryHasPassed(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	event := i.cascades(ada)[0].ID
	state := func(reference, kind, state string) string {
		id := uuid.NewString()
		i.sql(`insert into credentials
			  (tenant_id, id, principal_id, kind, connector, reference, state, event_id, expires_at, issued_at)
			values ($1, $2, $3, $4, 'platform', $5, $6, $7, now() - interval '1 minute', now())`,
			i.tenant.ID, id, ada, kind, reference, state, event)
		return id
	}
	p.issue("alive")
	alive, dead := state("alive", "session", "expiring"), state("dead", "session", "expiring")
	unseen, account := state("unseen", "session", "failed"), state("account", "service_account", "failed")
	for range 2 {
		i.probeExpired("platform")
	}
	for id, want := range map[string]string{alive: "failed", dead: "expiring", unseen: "failed", account: "failed"} {
		if got := i.state(id); got != want {
			t.Errorf("the item is %s, want %s", got, want)
		}
	}
}

// TestSecrets_AreErasedOnceNothingNeedsThem checks the secrets of items and of rotations.
func TestSecrets_AreErasedOnceNothingNeedsThem(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	role, old := d.account()
	hers := i.holdAccount(ada, role, old, "")
	i.holdAccount(bob, role, old, "")
	i.deactivate(ada)
	i.verifies(ada, hers)
	var kept int
	if err := i.connect().QueryRow(t.Context(), `
		select (select count(*) from credentials where id = $1 and secret is not null)
		     + (select count(*) from rotations where new_secret is not null)`, hers).Scan(&kept); err != nil || kept != 0 {
		t.Errorf("%d secrets are stored (%v), want none", kept, err)
	}
}

// TestRegister_ForAnExpiredAgentIsRefused registers a credential before the sweep has deactivated the
// agent.
func TestRegister_ForAnExpiredAgentIsRefused(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	agent := i.createAgent("bot", ada)
	i.sql(`update resources set valid_until = now() - interval '1 second' where tenant_id = $1 and id = $2`,
		i.tenant.ID, agent)
	status, answer := i.call("POST", "/v1/credentials", i.platform,
		fmt.Sprintf(`{"principalId":%q,"agentId":%q,"kind":"api_key","connector":"platform","reference":"k"}`, ada, agent))
	if status != http.StatusConflict {
		t.Errorf("answered %d %v, want 409", status, answer)
	}
}

// TestRelease_RefusedWhileCascadeOfGroupOwnerIsPending reactivates the owner before a worker has run
// the cascade.
func TestRelease_RefusedWhileCascadeOfGroupOwnerIsPending(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	agent := i.createAgent("bot", i.createGroup("owners", ada))
	id := i.hold(p, agent, agent, "key")
	i.deactivate(ada)
	i.must("PATCH", "/scim/v2/Users/"+ada, i.scim, patchActive("true"))
	if status, raw := i.raw("DELETE", "/v1/credentials/"+id, i.platform, ""); status != http.StatusConflict {
		t.Errorf("releasing the agent's key was answered %d %s, want 409", status, raw)
	}
}
