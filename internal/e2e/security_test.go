package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.temporal.io/api/enums/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/leaverhq/leaver/scim"
)

// route is a registered route; its pattern has a placeholder for each parameter.
type route struct{ method, pattern string }

func (i *installation) routes() []route {
	i.t.Helper()
	var routes []route
	routing := i.app.Handler().(chi.Routes)
	err := chi.Walk(routing, func(method, pattern string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routes = append(routes, route{method, strings.ReplaceAll(pattern, "/*", "")})
		return nil
	})
	if err != nil || len(routes) < 30 {
		i.t.Fatalf("walk the routes: %d found, %v", len(routes), err)
	}
	return routes
}

// tenantTables are the tables in which every row belongs to a tenant.
var tenantTables = []string{
	"resources", "edges", "restrictions", "lifecycle_events", "credentials", "evidence", "acts",
	"changes", "unique_values", "tenant_schemas", "issuers", "credential_states", "unmanaged", "rotations",
	"rotation_holders", "holds", "mappings", "evaluations", "group_snapshots", "entitlements", "entitlement_changes",
	"streams", "signals", "received_tokens", "invalidations", "clients", "access_tokens", "cascade_histories", "waivers",
	"erasures",
}

// open are the routes that need no token.
var open = map[string]bool{
	"/livez": true, "/readyz": true, "/v1/openapi.yaml": true, "/.well-known/authzen-configuration": true,
	"/.well-known/ssf-configuration/t/{tenant}": true, "/ssf/v1/jwks.json": true,
	// Security event tokens are signed and refused as RFC 8935 specifies; see ways_test.go.
	"/t/{tenant}/events": true,
	// A sign-in is a secret in the body; see TestLogin_SignsACommandLineIn.
	"/v1/sessions": true,
	// Clients authenticate by an assertion, which is refused as RFC 6749 specifies; see internal/oauth.
	"/t/{tenant}/oauth2/token": true, "/.well-known/oauth-authorization-server/t/{tenant}": true,
}

// everyRouteRefusesWhoHasNoTokenOfItsClass tests bug 5 of the table.
func everyRouteRefusesWhoHasNoTokenOfItsClass(t *testing.T) {
	i := installAPI(t)
	_, otherSCIM, _ := i.newTenant("umbrella")
	fill := strings.NewReplacer("{id}", uuid.NewString(), "{tenant}", "acme", "{name}", "User", "{urn}", "x")
	for _, r := range i.routes() {
		if open[r.pattern] || strings.HasPrefix(r.pattern, "/console/") { // see TestConsole_NeedsASession
			continue
		}
		wrong := map[string]string{"no token": "", "an unknown token": "leaver_scim_unknown"}
		if strings.Contains(r.pattern, scim.BasePath) {
			wrong["a platform token"], wrong["an operator token"] = i.platform, i.operator
		} else {
			wrong["a SCIM token"] = i.scim
		}
		if strings.HasPrefix(r.pattern, "/t/") {
			wrong["another tenant's token"] = otherSCIM
		}
		for what, token := range wrong {
			path := fill.Replace(r.pattern)
			if status, _ := i.raw(r.method, path, token, `{}`); status != http.StatusUnauthorized {
				t.Errorf("%s %s with %s answered %d, want 401", r.method, path, what, status)
			}
			// No encoding of the path bypasses authentication.
			for _, encoded := range []string{
				strings.ReplaceAll(path, "-", "%2D"), path + "%2F", "/" + strings.Replace(path[1:], "/", "%2F", 1),
			} {
				if status, _ := i.raw(
					r.method,
					encoded,
					token,
					`{}`,
				); status != http.StatusUnauthorized &&
					status != http.StatusNotFound {
					t.Errorf("%s %s with %s answered %d, want 401 or 404", r.method, encoded, what, status)
				}
			}
		}
	}
}

// twoTenantsCannotSeeEachOtherOnAnyRoute tests bug 13 of the table.
func twoTenantsCannotSeeEachOtherOnAnyRoute(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	agent := i.createAgent("ada-agent", ada)
	team := i.must("POST", "/scim/v2/Groups", i.scim,
		`{"displayName":"team","members":[{"value":"`+ada+`"}]}`)["id"].(string)
	key := i.hold(p, ada, agent, "acme-key")
	i.deactivate(ada)
	cascade := i.cascades(ada)[0].ID.String()
	_, otherSCIM, otherPlatform := i.newTenant("umbrella")

	ids := map[string]string{"ada": ada, "agent": agent, "team": team, "key": key, "cascade": cascade}
	for _, r := range i.routes() {
		var token string
		switch {
		case strings.Contains(r.pattern, scim.BasePath):
			token = otherSCIM
		case strings.HasPrefix(r.pattern, "/v1/credentials"), strings.HasPrefix(r.pattern, "/v1/scheduled-runs"):
			token = otherPlatform
		case strings.HasPrefix(r.pattern, "/v1/tenants/{tenant}"):
			token = i.operator // the path names the other tenant
		default:
			continue
		}
		for what, id := range ids {
			path := strings.NewReplacer("{id}", id, "{tenant}", "umbrella", "{name}", "User", "{urn}", "x").Replace(r.pattern)
			body := ""
			if r.method != http.MethodGet && r.method != http.MethodDelete {
				body = `{"userName":"ada@example.com","agentUserName":"x","displayName":"x",` +
					`"owners":[{"value":"` + ada + `"}],"members":[{"value":"` + ada + `"}]}`
			}
			status, raw := i.raw(r.method, path, token, body)
			if strings.Contains(r.pattern, "{id}") && status < 400 {
				t.Errorf("%s %s with %s's id answered %d", r.method, r.pattern, what, status)
			}
			// Only reads are checked: the response to a create may echo the ids that were sent.
			for name, foreign := range ids {
				if r.method == http.MethodGet && strings.Contains(string(raw), foreign) {
					t.Errorf("%s %s shows %s of the other tenant", r.method, r.pattern, name)
				}
			}
		}
	}
	if status, _ := i.call("POST", "/scim/v2/Groups", otherSCIM,
		`{"displayName":"x","members":[{"value":"`+ada+`"}]}`); status != http.StatusBadRequest {
		t.Errorf("a group of another tenant's user answered %d, want 400", status)
	}
	body := `{"principalId":"` + team + `","kind":"api_key","connector":"platform","reference":"x"}`
	if status, _ := i.call("POST", "/v1/credentials", otherPlatform, body); status != http.StatusUnprocessableEntity {
		t.Errorf("a registration at a connector of another tenant answered %d, want 422", status)
	}
	if got := i.must("GET", "/scim/v2/Users/"+ada, i.scim, "")["userName"]; got != "ada@example.com" {
		t.Errorf("the user is %v after the other tenant's writes", got)
	}
}

func TestRowLevelSecurity_HidesRowsWithoutTenant(t *testing.T) {
	i := installAPI(t)
	i.createUser("ada@example.com")
	err := i.app.DB.InNoTenant(t.Context(), func(tx pgx.Tx) error {
		for _, table := range tenantTables {
			var n int
			if err := tx.QueryRow(t.Context(), "select count(*) from "+table).Scan(&n); err != nil {
				return err
			}
			if n != 0 {
				t.Errorf("%s shows %d rows without a tenant", table, n)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = i.app.DB.InTenant(t.Context(), uuid.New(), func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(),
			`insert into acts (tenant_id, event_id, actor, verb, reason) values ($1, $1, '', '', '')`, i.tenant.ID)
		return err
	})
	if err == nil {
		t.Error("a row of another tenant was written")
	}
}

func TestEvidence_IsAppendOnly(t *testing.T) {
	i := installAPI(t)
	for _, sql := range []string{
		"update evidence set outcome = 'dead'", "delete from evidence", "truncate evidence",
		"update changes set actor = 'x'", "delete from changes",
		"update evidence_chain set record = '{}'", "delete from evidence_chain", "delete from evidence_checkpoints",
		"update cascade_histories set sha256 = ''", "do $$ begin set local leaver.erasing = 'on'; update evidence_chain set record = null; end $$",
		"do $$ begin set local leaver.erasing = 'on'; update evidence set detail = ''; end $$", "delete from erasures", "insert into evidence_pending (source, record) values ('acts', '{}')",
	} {
		err := i.app.DB.InTenant(t.Context(), i.tenant.ID, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), sql)
			return err
		})
		if err == nil {
			t.Errorf("%s was allowed", sql)
		}
	}
}

// TestRegister_RacingDeactivation runs registrations and deactivations concurrently.
// Either the registration is refused, or the cascade ends the credential.
func TestRegister_RacingDeactivation(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	const pairs = 25
	for n := range pairs {
		ada := i.createUser(fmt.Sprintf("ada-%d@example.com", n))
		agent := i.createAgent(fmt.Sprintf("agent-%d", n), ada)
		reference := fmt.Sprintf("key-%d", n)
		p.issue(reference)
		// The agent holds it for itself, so that only the owner's deactivation can refuse it.
		body := fmt.Sprintf(`{"principalId":%q,"agentId":%q,"kind":"api_key","connector":"platform","reference":%q}`,
			agent, agent, reference)
		var both sync.WaitGroup
		var status int
		var answer map[string]any
		both.Go(func() { status, answer = i.call("POST", "/v1/credentials", i.platform, body) })
		both.Go(func() { i.deactivate(ada) })
		both.Wait()
		switch status {
		case http.StatusConflict:
		case http.StatusCreated:
			if c := i.closed(ada); c.Outcome != "completed" || i.state(answer["id"].(string)) != "verified" {
				t.Fatalf("pair %d: the credential registered before the deactivation is %s (cascade %s), want verified",
					n, i.state(answer["id"].(string)), c.Outcome)
			}
		default:
			t.Fatalf("pair %d: the registration answered %d: %v", n, status, answer)
		}
		if status, _ := i.call("POST", "/v1/credentials", i.platform,
			strings.ReplaceAll(body, reference, reference+"-late")); status != http.StatusConflict {
			t.Fatalf("pair %d: a registration after the deactivation answered %d, want 409", n, status)
		}
	}
}

// TestSecrets_LeakNowhere registers recognizable secrets, which a failing downstream
// also echoes, and searches for them in logs, history, database and responses.
func TestSecrets_LeakNowhere(t *testing.T) {
	const canary = "CANARY-7f3a-do-not-leak"
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.must("POST", "/scim/v2/Users", i.scim,
		`{"userName":"ada@example.com","active":true,"password":"`+canary+`"}`)["id"].(string)
	for _, reference := range []string{"good", "echo"} {
		p.issue(reference)
		i.must("POST", "/v1/credentials", i.platform, fmt.Sprintf(
			`{"principalId":%q,"kind":"api_key","connector":"platform","reference":%q,"secret":%q}`, ada, reference, canary))
	}
	p.issue("shared")
	i.must("POST", "/v1/credentials", i.platform, fmt.Sprintf(
		`{"principalId":%q,"kind":"service_account","connector":"platform","reference":"shared","secret":%q,"shared":true}`,
		ada, canary))
	p.interceptWith(func(w http.ResponseWriter, kind, reference string) bool {
		if kind == "credential.revoke" && reference == "echo" {
			http.Error(w, `{"error":"`+canary+`","error_description":"`+canary+`"}`, http.StatusForbidden)
			return true
		}
		return false
	})
	i.deactivate(ada)
	c := i.closed(ada)
	if c.Survivors != 1 || c.Verified != 2 {
		t.Fatalf("cascade %+v; want 2 verified and 1 survivor", c)
	}
	found := map[string]string{"logs": i.logs.String(), "history": i.history(c.WorkflowID), "database": i.dump()}
	for _, path := range []string{
		"/v1/credentials?principal=" + ada, "/v1/tenants/acme/credentials", "/v1/tenants/acme/cascades/" + c.ID.String(),
		"/v1/tenants/acme/cascades/" + c.ID.String() + "/evidence", "/scim/v2/Users/" + ada, "/scim/v2/Users",
	} {
		token := i.operator
		if strings.HasPrefix(path, "/scim") {
			token = i.scim
		} else if strings.HasPrefix(path, "/v1/credentials") {
			token = i.platform
		}
		_, raw := i.raw("GET", path, token, "")
		found[path] = string(raw)
	}
	for where, text := range found {
		if len(text) < 100 {
			t.Errorf("%s is too short to be searched: %q", where, text)
		}
		if strings.Contains(text, canary) {
			t.Errorf("%s contains the secret", where)
		}
		if where == "history" && strings.Contains(text, "ada@example.com") {
			t.Errorf("the history contains the user's name")
		}
	}
}

// history returns all events of a workflow as Temporal stores them, as text.
func (i *installation) history(workflowID string) string {
	i.t.Helper()
	var b strings.Builder
	events := i.app.Temporal.GetWorkflowHistory(i.t.Context(), workflowID, "", false,
		enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		if err != nil {
			i.t.Fatal(err)
		}
		b.WriteString(protojson.Format(event))
	}
	return b.String()
}

// dump returns every row of every table as text, read as the superuser.
func (i *installation) dump() string {
	i.t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, i.cfg.Database.MigrateURL)
	if err != nil {
		i.t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	var b strings.Builder
	for _, table := range append([]string{"tenants", "tokens"}, tenantTables...) {
		rows, err := conn.Query(ctx, "select row_to_json(t)::text from "+table+" t")
		if err != nil {
			i.t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			i.t.Fatal(err)
		}
		b.WriteString(strings.Join(lines, "\n"))
	}
	return b.String()
}

func TestOpenAPI_DocumentsEveryRoute(t *testing.T) {
	i := installAPI(t)
	_, document := i.raw("GET", "/v1/openapi.yaml", "", "")
	for _, r := range i.routes() {
		path, ok := strings.CutPrefix(r.pattern, "/v1")
		if ok && !strings.Contains(string(document), "\n  "+path+":") {
			t.Errorf("%s is not in the document", path)
		}
	}
}

func TestFilter_RejectsHugeInput(t *testing.T) {
	i := installAPI(t)
	for what, filter := range map[string]string{
		"200 KB of parentheses": strings.Repeat("(", 100_000) + `userName eq "x"` + strings.Repeat(")", 100_000),
		"5 KB":                  `userName eq "` + strings.Repeat("x", 5_000) + `"`,
		"33 deep":               strings.Repeat("(", 33) + `userName eq "x"` + strings.Repeat(")", 33),
	} {
		status, answer := i.call("GET", "/scim/v2/Users?filter="+url.QueryEscape(filter), i.scim, "")
		if status != http.StatusBadRequest || answer["scimType"] != "invalidFilter" {
			t.Errorf("%s answered %d %v, want 400 invalidFilter", what, status, answer)
		}
	}
	i.createUser("alive@example.com")
}
