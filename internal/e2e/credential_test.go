package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/postgres"
	"github.com/leaverhq/leaver/internal/registry"
)

// importNDJSON imports lines, and returns the errors of invalid lines by line number.
func (i *installation) importNDJSON(
	token, path string, lines ...string,
) (status int, bad map[int]string, body map[string]any) {
	i.t.Helper()
	req, err := http.NewRequestWithContext(i.t.Context(), http.MethodPost,
		i.url+path, strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		i.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		i.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Errors []struct {
			Line   int
			Detail string
		}
	}
	raw := json.RawMessage{}
	if err := json.NewDecoder(resp.Body).Decode(&raw); err != nil {
		i.t.Fatal(err)
	}
	if json.Unmarshal(raw, &answer) != nil || json.Unmarshal(raw, &body) != nil {
		i.t.Fatalf("answered %s", raw)
	}
	bad = make(map[int]string)
	for _, e := range answer.Errors {
		bad[e.Line] = e.Detail
	}
	return resp.StatusCode, bad, body
}

func key(principal, reference string) string {
	return fmt.Sprintf(`{"principalId":%q,"kind":"api_key","connector":"platform","reference":%q}`, principal, reference)
}

func (i *installation) count(state string) int {
	i.t.Helper()
	return len(i.must("GET", "/v1/credentials?limit=500&state="+state, i.platform, "")["items"].([]any))
}

func TestImport_IsAtomicAndReportsInvalidLines(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada, gone := i.createUser("ada@example.com"), i.createUser("gone@example.com")
	_, otherSCIM, _ := i.newTenant("umbrella")
	foreign := i.must("POST", "/scim/v2/Users", otherSCIM, `{"userName":"foreign","active":true}`)["id"].(string)
	i.deactivate(gone)
	i.hold(p, ada, "", "known")

	status, bad, _ := i.importNDJSON(i.platform, "/v1/import",
		key(ada, "good"), `{"principalId":`, key(ada, "")+" ", `{"nonsense":1}`, "", key(ada, "x")[:20],
		strings.Replace(key(ada, "expired"), "{", `{"expiresAt":"2020-01-01T00:00:00Z",`, 1))
	if want := []int{2, 3, 4, 6, 7}; status != http.StatusUnprocessableEntity || !cmp.Equal(lines(bad), want) {
		t.Errorf("malformed lines: %d %v; want 422 for lines %v", status, bad, want)
	}
	status, bad, _ = i.importNDJSON(i.platform, "/v1/import",
		key(ada, "good"), key(uuid.NewString(), "unknown"), key(gone, "restricted"), key(ada, "known"),
		key(ada, "twice"), key(ada, "twice"), key(foreign, "foreign"), key(ada, ""))
	want := map[int]string{
		2: "no such principal",
		3: "the principal is restricted",
		4: "already registered",
		6: "already registered",
		7: "no such principal",
		8: "reference must be 1 to 512 bytes long",
	}
	if status != http.StatusUnprocessableEntity || !cmp.Equal(bad, want) {
		t.Errorf("refused lines: %d %v; want 422 %v", status, bad, want)
	}
	if n := i.count("live"); n != 1 {
		t.Errorf("%d items are live after invalid imports, want 1", n)
	}
	var many []string
	for n := range 400 {
		many = append(many, key(ada, fmt.Sprint("item-", n)))
	}
	if status, bad, body := i.importNDJSON(i.operator, "/v1/tenants/acme/import", many...); status != http.StatusCreated ||
		body["registered"] != 400.0 {
		t.Errorf("a valid import answered %d %v %v, want 201", status, bad, body)
	}
	if n := i.count("live"); n != 401 {
		t.Errorf("%d items are live, want 401", n)
	}
}

func lines(bad map[int]string) []int {
	var numbers []int
	for n := range 100 {
		if _, ok := bad[n]; ok {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

func TestHistory_ListsStates(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	p.issue("k")
	id := i.must("POST", "/v1/credentials", i.platform,
		strings.Replace(key(ada, "k"), "{", `{"entitlement":"engineering/prod","scopes":["deploy"],`, 1))["id"].(string)
	i.deactivate(ada)
	cascade := i.closed(ada)
	item := i.must("GET", "/v1/tenants/acme/credentials/"+id, i.operator, "")
	var states []string
	for _, h := range item["history"].([]any) {
		change := h.(map[string]any)
		states = append(states, change["state"].(string))
		if change["state"] != "live" && change["cascadeId"] != cascade.ID.String() {
			t.Errorf("%v does not name its cascade", change)
		}
	}
	if want := []string{"live", "ending", "verified"}; !cmp.Equal(states, want) ||
		item["entitlement"] != "engineering/prod" {
		t.Errorf("states %v, entitlement %v; want %v and engineering/prod", states, item["entitlement"], want)
	}
}

// TestUnmanaged_IsListedAndClaimedByOperator relates to bug 16 of the table: a key does
// not belong to a user because of its name.
// TestCredentials_PagesListEachOnce walks lists of credentials and of changes to their ends.
func TestCredentials_PagesListEachOnce(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	for n := range 5 {
		i.hold(p, ada, "", fmt.Sprintf("key-%d", n))
	}
	i.must("PATCH", "/scim/v2/Users/"+ada, i.scim, `{"Operations":[{"op":"replace","path":"title","value":"x"}]}`)
	i.createUser("bob@example.com")
	for path, row := range map[string]struct {
		token string
		want  int
	}{
		"/v1/credentials?limit=2":                          {i.platform, 5},
		"/v1/tenants/acme/credentials?limit=2":             {i.operator, 5},
		"/v1/tenants/acme/changes?limit=1&resource=" + ada: {i.operator, 2},
		"/v1/tenants/acme/changes?limit=1":                 {i.operator, 3},
	} {
		seen, cursor := make(map[string]bool), ""
		for range 10 {
			page := i.must("GET", path+"&cursor="+cursor, row.token, "")
			for _, item := range page["items"].([]any) {
				seen[fmt.Sprint(item.(map[string]any)["id"])] = true
			}
			if cursor, _ = page["nextCursor"].(string); cursor == "" {
				break
			}
		}
		if len(seen) != row.want || cursor != "" {
			t.Errorf("%s lists %d, want %d", path, len(seen), row.want)
		}
	}
}

func TestUnmanaged_IsListedAndClaimedByOperator(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	i.work()
	ada := i.createUser("ada@example.com")
	forgotten, password := d.account()
	d.exec("comment on role " + forgotten + " is '" + postgres.Label + ada + "'")
	unlabelled, _ := d.account()
	d.exec("comment on role " + unlabelled + " is 'made by ada@example.com'")
	i.deactivate(ada)
	cascade := i.closed(ada)
	if cascade.Outcome != "completed" || !d.logsIn(forgotten, password) {
		t.Fatalf("cascade %+v; want completed, and the unmanaged role untouched", cascade)
	}
	unmanaged := i.must("GET", "/v1/tenants/acme/unmanaged", i.operator, "")["items"].([]any)
	if len(unmanaged) != 1 || unmanaged[0].(map[string]any)["reference"] != forgotten ||
		unmanaged[0].(map[string]any)["labelledPrincipalRestricted"] != true {
		t.Fatalf("unmanaged %v; want only the labelled role", unmanaged)
	}
	id := unmanaged[0].(map[string]any)["id"].(string)
	bind := "/v1/tenants/acme/unmanaged/" + id + "/claim"
	for body, want := range map[string]int{
		`{"principalId":"` + ada + `"}`: http.StatusUnprocessableEntity, `{"reason":"x"}`: http.StatusUnprocessableEntity,
		`{"principalId":"` + uuid.NewString() + `","reason":"x"}`: http.StatusUnprocessableEntity,
	} {
		if status, _ := i.call("POST", bind, i.operator, body); status != want {
			t.Errorf("binding with %s answered %d, want %d", body, status, want)
		}
	}
	bound := i.must("POST", bind, i.operator, `{"principalId":"`+ada+`","reason":"the label says so"}`)
	again := i.closed(ada)
	if again.ID == cascade.ID || bound["startedCascadeId"] != again.ID.String() ||
		again.Trigger != "claimed" || again.Outcome != "completed" {
		t.Errorf("after binding: %v and cascade %+v; want a separate, completed cascade", bound, again)
	}
	if d.logsIn(forgotten, password) {
		t.Error("the bound role can still log in")
	}
	if got := i.must("GET", "/v1/tenants/acme/credentials/"+bound["id"].(string),
		i.operator, "")["state"]; got != "verified" {
		// Without a password, the connector probes the role in the catalog.
		t.Errorf("the bound role is %v, want verified", got)
	}
	if status, _ := i.call("POST", bind, i.operator,
		`{"principalId":"`+ada+`","reason":"again"}`); status != http.StatusNotFound {
		t.Errorf("binding twice answered %d, want 404", status)
	}
}

// minting is a connector whose accounts issue credentials.
type minting struct{ *crm }

func (minting) Mints() bool { return true }

func TestTrustLabels_KnowsWhatMints(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	entry := i.app.Connectors["crm"]
	entry.TrustLabels, entry.Connector = true, minting{entry.Connector.(*crm)}
	i.app.Connectors["crm"] = entry
	i.work()
	ada := i.createUser("ada@example.com")
	role, _ := d.account()
	d.exec("comment on role " + role + " is '" + postgres.Label + ada + "'")
	i.deactivate(ada)
	i.closed(ada)
	items := i.must("GET", "/v1/tenants/acme/credentials?principal="+ada, i.operator, "")["items"].([]any)
	if len(items) != 1 || items[0].(map[string]any)["mints"] != true {
		t.Errorf("the claimed credentials are %v, want one that mints", items)
	}
}

// naming is a connector whose downstream names principals by e-mail addresses.
type naming struct{ *crm }

func (n naming) Discover(ctx context.Context, principals []connectors.Principal) ([]connectors.Found, error) {
	found, err := n.crm.Discover(ctx, principals)
	for i := range found {
		found[i].Named = true
	}
	return found, err
}

func TestTrustLabels_ClaimsNothingByName(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	entry := i.app.Connectors["crm"]
	entry.TrustLabels, entry.Connector = true, naming{entry.Connector.(*crm)}
	i.app.Connectors["crm"] = entry
	i.work()
	ada := i.createUser("ada@example.com")
	role, password := d.account()
	d.exec("comment on role " + role + " is '" + postgres.Label + ada + "'")
	i.deactivate(ada)
	c := i.closed(ada)
	found := i.must("GET", "/v1/tenants/acme/unmanaged", i.operator, "")["items"].([]any)
	if c.Verified != 0 || len(found) != 1 || !d.logsIn(role, password) {
		t.Errorf("cascade %+v, unmanaged %v; want the role listed, and alive", c, found)
	}
}

func TestTrustLabels_BindsLabelledAccounts(t *testing.T) {
	i := installAPI(t)
	d := i.newCRM()
	entry := i.app.Connectors["crm"]
	entry.TrustLabels = true
	i.app.Connectors["crm"] = entry
	i.work()
	ada := i.createUser("ada@example.com")
	role, password := d.account()
	d.exec("comment on role " + role + " is '" + postgres.Label + ada + "'")
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || c.Verified != 1 || d.logsIn(role, password) {
		t.Errorf("cascade %+v; want the labelled role ended in the same cascade", c)
	}
}

func TestCascade_FailsIfConnectorCannotDiscover(t *testing.T) {
	i := installAPI(t)
	i.app.Connectors["silent"] = registry.Entry{Connector: unwilling{}, Tenants: []string{"acme"}}
	i.work()
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "failed" || c.Survivors != 0 {
		t.Errorf("cascade %+v; want failed without survivors", c)
	}
}

func TestPlan_ListsEffectsAndChangesNothing(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	d := i.newCRM()
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	agent := i.createAgent("hers", ada)
	role, password := d.account()
	i.hold(p, ada, agent, "key")
	i.must("POST", "/v1/scheduled-runs", i.platform, `{"principalId":"`+ada+`","connector":"platform","reference":"run"}`)
	i.holdAccount(ada, role, password, "")
	i.holdAccount(bob, role, password, "")
	found := i.must("GET", "/v1/tenants/acme/principals?name=ADA@example.com", i.operator, "")["items"].([]any)
	if len(found) != 1 || found[0].(map[string]any)["id"] != ada {
		t.Fatalf("found %v, want Ada", found)
	}
	plan := i.must("GET", "/v1/tenants/acme/principals/"+ada+"/plan", i.operator, "")
	var got []string
	for _, item := range plan["items"].([]any) {
		of := item.(map[string]any)
		got = append(got, fmt.Sprint(of["verb"], " ", of["connector"], " ", of["verifiable"]))
	}
	if want := []string{"cancel platform true", "revoke platform true", "rotate crm true"}; !cmp.Equal(got, want) {
		t.Errorf("the plan is %v, want %v", got, want)
	}
	if orphans := plan["orphanedAgents"].([]any); len(orphans) != 1 || orphans[0].(map[string]any)["name"] != "hers" {
		t.Errorf("orphans %v, want the agent", orphans)
	}
	if n := i.count("live"); n != 3 || len(i.cascades(ada)) != 0 {
		t.Errorf("%d items are live and there are %d cascades after the plan, want 3 and 0", n, len(i.cascades(ada)))
	}
}

func TestPrincipal_EndedByOperator(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "key")
	end := "/v1/tenants/acme/principals/" + ada + "/end"
	started := i.must("POST", end, i.operator, `{"reason":"laptop stolen"}`)
	if c := i.closed(ada); c.Outcome != "completed" || c.ID.String() != started["cascadeId"] ||
		c.Trigger != "operator" || i.state(id) != "verified" {
		t.Errorf("cascade %+v, item %s; want completed by the operator, and verified", c, i.state(id))
	}
	if got := i.must("GET", "/scim/v2/Users/"+ada, i.scim, "")["active"]; got != false {
		t.Errorf("active is %v, want false", got)
	}
	acts := i.must("GET", "/v1/tenants/acme/cascades/"+started["cascadeId"].(string)+"/acts",
		i.operator, "")["items"].([]any)
	if len(acts) != 1 || acts[0].(map[string]any)["reason"] != "laptop stolen" {
		t.Errorf("acts %v, want the operator's reason", acts)
	}
	if status, _ := i.call("POST", end, i.operator, `{"reason":"again"}`); status != http.StatusConflict {
		t.Errorf("ending twice answered %d, want 409", status)
	}
}

// TestCascade_EndsMintersFirst registers a minter after other credentials, and reads the order of the plan and of the
// cascade.
func TestCascade_EndsMintersFirst(t *testing.T) {
	i := installAPI(t)
	i.app.Connectors["noop"] = registry.Entry{Connector: noopConnector{}, Tenants: []string{"acme"}}
	i.work()
	ada := i.createUser("ada@example.com")
	register := func(reference, more string) {
		i.must("POST", "/v1/credentials", i.platform,
			fmt.Sprintf(`{"principalId":%q,"kind":"api_key","connector":"noop","reference":%q%s}`, ada, reference, more))
	}
	register("first", "")
	register("second", "")
	register("minter", `,"mints":true`)
	plan := i.must("GET", "/v1/tenants/acme/principals/"+ada+"/plan", i.operator, "")
	var planned []string
	for _, item := range plan["items"].([]any) {
		planned = append(planned, item.(map[string]any)["reference"].(string))
	}
	if diff := cmp.Diff([]string{"minter", "first", "second"}, planned); diff != "" {
		t.Error(diff)
	}
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" {
		t.Errorf("the cascade %s", c.Outcome)
	}
}
