package scim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/leaverhq/leaver/internal/tenant"
)

// A PATCH of nothing but active is made without a look at the resource. What comes of
// it is what comes of any other PATCH.

// TestAPATCHOfActiveAloneIsLikeAnyOther sends random PATCHes twice: to one user as they
// are, and to another with an If-Match, which has the server look.
func TestAPATCHOfActiveAloneIsLikeAnyOther(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	conn := p.connect()
	owned := fmt.Sprintf(`,"owners":[{"value":%q}]`, p.create("/Users", `{"userName":"owner"}`))
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		start := rapid.SampledFrom([]string{`,"active":true`, `,"active":false`, ``}).Draw(t, "active at first")
		endpoint, name := "/Users", "userName"
		if rapid.Bool().Draw(t, "agents") {
			endpoint, name, start = "/Agents", "agentUserName", start+owned
		}
		var ids [2]string
		for i := range ids {
			ids[i] = p.create(endpoint, fmt.Sprintf(`{%q:"ada-%d-%d","externalId":"x"%s}`, name, run, i, start))
		}
		if rapid.Bool().Draw(t, "in a group") {
			p.create("/Groups", fmt.Sprintf(`{"displayName":"g","members":[{"value":%q},{"value":%q}]}`, ids[0], ids[1]))
		}
		for range rapid.IntRange(1, 5).Draw(t, "patches") {
			body := patchBody(rapid.SampledFrom([]string{
				`{"op":"replace","path":"active","value":false}`, `{"op":"add","path":"urn:ietf:params:scim:schemas:core:2.0:User:ACTIVE","value":"False"}`,
				`{"op":"replace","value":{"active":true}}`, `{"op":"Replace","path":"active","value":"True"}`, `{"op":"replace","value":{"Active":false}}`,
				`{"op":"remove","path":"active"}`, `{"op":"replace","path":"externalId","value":"y"}`, `{"op":"replace","path":"active","value":"perhaps"}`,
				`{"op":"replace","path":"active","value":null}`, `{"op":"replace","path":"active.x","value":true}`, `{"op":"replace","value":{"active":false,"externalId":"z"}}`,
			}).Draw(t, "patch"))
			alone, looked := p.do("PATCH", endpoint+"/"+ids[0], body), p.do("PATCH", endpoint+"/"+ids[1], body, "If-Match", "*")
			if diff := cmp.Diff(madeOf(t, conn, looked, ids[1]), madeOf(t, conn, alone, ids[0])); diff != "" {
				t.Fatalf("%s: with a look -, without +:\n%s", body, diff)
			}
		}
	})
}

// made is what came of a PATCH, but for what names the user and the time.
type made struct {
	Status  int
	ETag    string
	Body    map[string]any
	Row     string
	Events  []string
	Changes []string
}

func madeOf(t *rapid.T, conn *pgx.Conn, a answer, id string) made {
	m := made{Status: a.status, ETag: a.header.Get("ETag"), Body: a.body}
	for _, name := range []string{"id", "meta", "userName", "agentUserName"} {
		delete(m.Body, name)
	}
	for name, value := range m.Body {
		if extension, ok := value.(map[string]any); ok && extension["restrictedSince"] != nil {
			m.Body[name] = map[string]any{"cause": extension["cause"], "survivors": extension["survivors"], "workflow": extension["workflowId"] != nil}
		}
	}
	ctx := t.Context()
	err := conn.QueryRow(ctx, `select concat_ws(' ', r.version, r.active, r.document - 'userName' - 'agentUserName', r.plain, x.cause, e.kind)
		  from resources r left join restrictions x on x.principal_id = r.id left join lifecycle_events e on e.id = x.event_id where r.id = $1`, id).Scan(&m.Row)
	if err != nil {
		t.Fatal(err)
	}
	for sql, into := range map[string]*[]string{
		`select concat_ws(' ', kind, principal_type, trigger, actor, changed, replace(workflow_id, principal_id::text, 'id')) from lifecycle_events where principal_id = $1 order by sequence`: &m.Events,
		`select concat_ws(' ', resource_type, version, trigger, actor, changed) from changes where resource_id = $1 order by id`:                                                               &m.Changes,
	} {
		rows, err := conn.Query(ctx, sql, id)
		if err != nil {
			t.Fatal(err)
		}
		if *into, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestAPATCHOfActiveAloneOfWhatIsNotThereIs404(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	body := patchBody(`{"op":"replace","path":"active","value":false}`)
	ada := p.create("/Users", `{"userName":"ada"}`)
	gone := p.create("/Users", `{"userName":"gone"}`)
	p.do("DELETE", "/Users/"+gone, "")
	for what, path := range map[string]string{
		"no resource": "/Users/0198c3f5-0000-7000-8000-000000000000", "no UUID": "/Users/ada", "another type": "/Agents/" + ada, "deleted": "/Users/" + gone,
	} {
		t.Run(what, func(t *testing.T) {
			if a := p.do("PATCH", path, body); a.status != http.StatusNotFound {
				t.Errorf("answered %d: %s", a.status, a.raw)
			}
		})
	}
	if p.restricted(ada) {
		t.Error("a user was deactivated as an agent")
	}
}

func TestWhoIsDeactivatedAndReturnsAtTheSameTimeIsRestrictedIfInactive(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada","active":true}`)
	for range 5 {
		statuses := p.atOnce(60, func(i int) int {
			operations := fmt.Sprintf(`{"op":"replace","path":"active","value":%t}`, i%2 == 0)
			if i%5 == 0 { // made with a look
				operations += fmt.Sprintf(`,{"op":"replace","path":"title","value":"%d"}`, i)
			}
			return p.status("PATCH", "/Users/"+ada, patchBody(operations))
		})
		if statuses[http.StatusOK] != 60 {
			t.Errorf("statuses %v; want 60 times 200", statuses)
		}
		var active, restricted bool
		var version, audited int
		var turns string
		if err := p.row(`select r.active, exists (select 1 from restrictions x where x.principal_id = r.id), r.version, (select count(*) from changes c where c.resource_id = r.id),
			  (select string_agg(kind, ' ' order by sequence) from lifecycle_events e where e.principal_id = r.id and kind <> 'mover')
			  from resources r where r.id = $1`, ada).Scan(&active, &restricted, &version, &audited, &turns); err != nil {
			t.Fatal(err)
		}
		if restricted == active {
			t.Errorf("active %t and restricted %t", active, restricted)
		}
		if version != audited {
			t.Errorf("%d versions and %d audit rows", version, audited)
		}
		if !strings.HasPrefix(strings.Repeat("joiner leaver ", 400), turns) {
			t.Errorf("she does not leave and return by turns: %s", turns)
		}
	}
}
