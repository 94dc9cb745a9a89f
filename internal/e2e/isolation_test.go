package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// TestRegister_HoldsUpNoDeactivation checks that a stalled registration does not block the commit of
// a deactivation, and that the cascade ends the credential once it is registered.
func TestRegister_HoldsUpNoDeactivation(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	agent := i.createAgent("ada-bot", ada)
	for _, sql := range []string{
		`create function wait_for_test() returns trigger language plpgsql as $$ begin
		   perform pg_advisory_xact_lock(1); return new; end $$`,
		`create trigger wait_for_test before insert on credentials for each row execute function wait_for_test()`,
	} {
		i.sql(sql)
	}
	conn := i.connect()
	if _, err := conn.Exec(t.Context(), `select pg_advisory_lock(1)`); err != nil {
		t.Fatal(err)
	}
	p.issue("late")
	registered := make(chan map[string]any, 1)
	go func() {
		_, answer := i.call("POST", "/v1/credentials", i.platform, fmt.Sprintf(
			`{"principalId":%q,"agentId":%q,"kind":"api_key","connector":"platform","reference":"late"}`, ada, agent))
		registered <- answer
	}()
	stacktest.Eventually(t, 20*time.Second, "the registration that waits", func() bool {
		var n int
		err := conn.QueryRow(t.Context(), `select count(*)`+stalledSessions).Scan(&n)
		return err == nil && n > 0
	})
	i.deactivate(ada)
	answer := i.must("POST", "/access/v1/evaluation", i.platform, fmt.Sprintf(
		`{"subject":{"type":"agent","id":%q,"properties":{"on_behalf_of":%q}},`+
			`"action":{"name":"x"},"resource":{"type":"mail","id":"1"}}`, agent, ada))
	if answer["decision"] != false {
		t.Errorf("the decision is %v, want false", answer)
	}
	i.work()
	if _, err := conn.Exec(t.Context(), `select pg_advisory_unlock(1)`); err != nil {
		t.Fatal(err)
	}
	id, ok := (<-registered)["id"].(string)
	if !ok {
		t.Fatal("the registration was refused although it began before the deactivation")
	}
	if c := i.closed(ada); c.Outcome != "completed" || i.state(id) != "verified" || p.isAlive("late") {
		t.Errorf("cascade %+v, item %s; want completed and verified", c, i.state(id))
	}
	later := fmt.Sprintf(`{"principalId":%q,"kind":"api_key","connector":"platform","reference":"later"}`, ada)
	if status, _ := i.call("POST", "/v1/credentials", i.platform, later); status != http.StatusConflict {
		t.Errorf("a registration after the deactivation was answered %d, want 409", status)
	}
}

// TestImport_InvalidLocksNothing checks that an import with an invalid line checks the other lines
// without inserting them, so that it takes no locks.
func TestImport_InvalidLocksNothing(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.sql(`create function no_insert() returns trigger language plpgsql as $$ begin raise exception 'inserted'; end $$`)
	i.sql(`create trigger no_insert before insert on credentials for each row execute function no_insert()`)
	line := fmt.Sprintf(`{"principalId":%q,"kind":"api_key","connector":"platform","reference":"k%%d"}`, ada)
	body := "{}\n" + fmt.Sprintf(line, 1) + "\n" + fmt.Sprintf(line, 2) + "\n" + fmt.Sprintf(line, 2)
	status, raw := i.ndjson(body)
	if status != http.StatusUnprocessableEntity || strings.Count(string(raw), `"line"`) != 2 {
		t.Errorf("answered %d %s; want 422 that names lines 1 and 4", status, raw)
	}
}

func (i *installation) ndjson(body string) (int, []byte) {
	i.t.Helper()
	req, err := http.NewRequestWithContext(i.t.Context(), http.MethodPost, i.url+"/v1/import", bytes.NewBufferString(body))
	if err != nil {
		i.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+i.platform)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		i.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var buf bytes.Buffer
	_, _ = buf.ReadFrom(resp.Body)
	return resp.StatusCode, buf.Bytes()
}

// TestImport_HasARateForEachToken checks that the import burst of one token is limited.
func TestImport_HasARateForEachToken(t *testing.T) {
	i := installAPI(t)
	body := strings.Repeat("{}\n", 10_000)
	last := 0
	for range 5 {
		last, _ = i.ndjson(body)
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("the fifth import of 10000 lines was answered %d, want 429", last)
	}
}

// TestDecision_SkipsRestrictedOwners uses an agent that is owned by a group with many restricted
// members and one active member.
func TestDecision_SkipsRestrictedOwners(t *testing.T) {
	i := installAPI(t)
	boss := i.createUser("boss@example.com")
	group := i.must("POST", "/scim/v2/Groups", i.scim,
		fmt.Sprintf(`{"displayName":"owners","members":[{"value":%q}]}`, boss))["id"].(string)
	agent := i.createAgent("bot", group)
	i.crowdOfRestricted(group, 5000)
	ask := func() map[string]any {
		return i.must("GET", "/v1/principals/"+agent+"/access", i.platform, "")
	}
	if s := ask(); s["status"] != "active" {
		t.Errorf("with one active member the agent's status is %v, want active", s)
	}
	var walked int
	if err := i.connect().QueryRow(t.Context(), `
		select count(*) from edges
		 where source_id = $1 and attribute = 'members' and not restricted`, group).Scan(&walked); err != nil || walked != 1 {
		t.Errorf("%d members are not marked as restricted (%v), want 1", walked, err)
	}
	// The marks follow deactivations, reactivations and edges that are added later.
	i.deactivate(boss)
	if s := ask(); s["status"] == "active" {
		t.Errorf("without an active member the agent's status is %v", s)
	}
	i.must("PATCH", "/scim/v2/Users/"+boss, i.scim, patchActive("true"))
	i.deactivate(boss)
	later := i.must("POST", "/scim/v2/Groups", i.scim,
		fmt.Sprintf(`{"displayName":"later","members":[{"value":%q}]}`, boss))["id"].(string)
	i.must("PATCH", "/scim/v2/Users/"+boss, i.scim, patchActive("true"))
	var marked int
	if err := i.connect().QueryRow(t.Context(),
		`select count(*) from edges where target_id = $1 and restricted`, boss).Scan(&marked); err != nil || marked != 0 {
		t.Errorf("%d edges to a reactivated member are marked (%v), want none; the later group is %s", marked, err, later)
	}
}

// crowdOfRestricted inserts n restricted members of a group, as deactivations through SCIM leave them.
func (i *installation) crowdOfRestricted(group string, n int) {
	i.t.Helper()
	i.sql(fmt.Sprintf(`
		with gone as (
		  insert into resources (tenant_id, id, type, unique_name, active, document, created_at, modified_at, extensions)
		  select '%[1]s'::uuid, gen_random_uuid(), 'User', 'gone' || n || '@example.com', false,
		         '{"active": false}', now(), now(), '{}'
		    from generate_series(1, %[3]d) n returning id),
		members as (
		  insert into edges (tenant_id, source_id, attribute, target_id)
		  select '%[1]s'::uuid, '%[2]s'::uuid, 'members', id from gone)
		insert into restrictions (tenant_id, principal_id, cause) select '%[1]s'::uuid, id, 'deactivated' from gone`, i.tenant.ID, group, n))
	i.sql(fmt.Sprintf(`update edges e set restricted = true where source_id = '%s'
		and exists (select 1 from restrictions x where x.principal_id = e.target_id)`, group))
}

// TestTenants_LoadOfOneLeavesDecisionsOfOthers compares the latency of one tenant's decisions while
// another tenant sends the most expensive requests with their latency before.
func TestTenants_LoadOfOneLeavesDecisionsOfOthers(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	victim := *i
	victim.tenant, victim.scim, victim.platform = i.newTenant("victim")
	bob := victim.createUser("bob@example.com")
	bot := victim.createAgent("bot", bob)
	question := fmt.Sprintf(`{"subject":{"type":"agent","id":%q,"properties":{"on_behalf_of":%q}},`+
		`"action":{"name":"x"},"resource":{"type":"mail","id":"1"}}`, bot, bob)

	i.sql(fmt.Sprintf(`
		insert into resources (tenant_id, id, type, unique_name, active, document, created_at, modified_at, extensions)
		select '%s'::uuid, gen_random_uuid(), 'User', 'u' || n || '@example.com', true, jsonb_build_object('userName', 'u' || n,
		       'emails', jsonb_build_array(jsonb_build_object('value', 'u' || n || '@example.com'),
		                                   jsonb_build_object('value', 'v' || n || '@example.com'))),
		       now(), now(), '{}' from generate_series(1, 6000) n`, i.tenant.ID))
	i.sql(`analyze resources`)
	ada := i.createUser("ada@example.com")
	group := i.must("POST", "/scim/v2/Groups", i.scim,
		fmt.Sprintf(`{"displayName":"owners","members":[{"value":%q}]}`, ada))["id"].(string)
	agent := i.createAgent("ada-bot", group)
	i.crowdOfRestricted(group, 20_000)
	filter := url.QueryEscape(strings.Repeat(`emails.value co "zz" or `, 150) + `emails.value co "zz"`)
	imports := "{}\n" + strings.Repeat(
		fmt.Sprintf(`{"principalId":%q,"kind":"api_key","connector":"platform","reference":"k"}`+"\n", ada), 500)

	attacks := map[string]func(context.Context){
		"searches": func(ctx context.Context) {
			i.send(ctx, "GET", "/scim/v2/Users?filter="+filter, i.scim, "application/json", "")
		},
		"imports": func(ctx context.Context) {
			i.send(ctx, "POST", "/v1/import", i.platform, "application/x-ndjson", imports)
		},
		"decisions about a group of restricted owners": func(ctx context.Context) {
			i.send(ctx, "POST", "/access/v1/evaluation", i.platform, "application/json", fmt.Sprintf(
				`{"subject":{"type":"agent","id":%q,"properties":{"on_behalf_of":%q}},`+
					`"action":{"name":"x"},"resource":{"type":"mail","id":"1"}}`, agent, ada))
		},
	}
	idle := victim.decisionsP95(question)
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			for range 8 {
				clients.Go(func() {
					for ctx.Err() == nil {
						attack(ctx)
					}
				})
			}
			under := victim.decisionsP95(question)
			stop()
			clients.Wait()
			t.Logf("p95 idle %s, under attack %s", idle, under)
			// 250 ms is the minimum bound, because five times a latency below 1 ms is within scheduling noise.
			if under > max(5*idle, 250*time.Millisecond) {
				t.Errorf("the other tenant's decisions take %s at p95, want at most 5 times the %s when idle", under, idle)
			}
		})
	}
}

// send sends a request and ignores the response.
func (i *installation) send(ctx context.Context, method, path, token, media, body string) {
	req, err := http.NewRequestWithContext(ctx, method, i.url+path, strings.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", media)
	if resp, err := http.DefaultClient.Do(req); err == nil {
		_ = resp.Body.Close()
	}
}

// decisionsP95 returns the 95th percentile of the latency of 600 decisions, all of which must
// succeed.
func (i *installation) decisionsP95(question string) time.Duration {
	i.t.Helper()
	took := make([]time.Duration, 0, 600)
	for range cap(took) {
		began := time.Now()
		status, _ := i.call("POST", "/access/v1/evaluation", i.platform, question)
		if status != http.StatusOK {
			i.t.Fatalf("a decision was answered %d", status)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)*95/100]
}

func TestAuthorization_TwiceIsRefused(t *testing.T) {
	i := installAPI(t)
	junk := i.token(uuid.Nil, auth.ClassOperator)
	for path, token := range map[string]string{
		"/scim/v2/Users": i.scim, "/v1/credentials": i.platform, "/v1/tenants": i.operator, "/ssf/v1/streams": i.platform,
	} {
		for _, headers := range [][]string{{"Bearer " + token, "Bearer " + junk}, {"Bearer " + junk, "Bearer " + token}, {"Bearer " + token, ""}} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, i.url+path, http.NoBody)
			req.Header["Authorization"] = headers
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s with two Authorization headers was answered %d, want 401", path, resp.StatusCode)
			}
		}
	}
}
