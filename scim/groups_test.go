package scim_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/tenant"
)

func TestGroups_IncludeIndirectMemberships(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada"}`)
	agent := p.create("/Agents", `{"agentUserName":"writer","owners":["`+ada+`"]}`)
	inner := p.create("/Groups", `{"displayName":"inner","members":["`+ada+`","`+agent+`"]}`)
	middle := p.create("/Groups", `{"displayName":"middle","members":["`+inner+`"]}`)
	outer := p.create("/Groups", `{"displayName":"outer","members":["`+middle+`","`+ada+`"]}`)
	// A cycle of groups must not loop forever.
	p.do("PATCH", "/Groups/"+inner, patchBody(`{"op":"add","path":"members","value":"`+outer+`"}`))
	want := `{"groups":[{"value":"` + inner + `","type":"direct","display":"inner","$ref":"` + p.url + "/Groups/" + inner + `"},{"value":"` + middle + `","type":"indirect"},{"value":"` + outer + `","type":"%s"}]}`
	p.wantJSON(p.do("GET", "/Users/"+ada, "").body, fmt.Sprintf(want, "direct"))
	p.wantJSON(p.do("GET", "/Agents/"+agent, "").body, fmt.Sprintf(want, "indirect"))
	if a := p.do("GET", "/Groups/"+inner, ""); a.body["groups"] != nil {
		t.Errorf("a group has the attribute groups, which its schema lacks: %s", a.raw)
	}
	// Writes to groups are ignored by every method.
	for _, a := range []answer{
		p.do("PATCH", "/Users/"+ada, patchBody(`{"op":"replace","path":"groups","value":[]}`)),
		p.do("PATCH", "/Users/"+ada, patchBody(`{"op":"remove","path":"groups[value eq \"`+inner+`\"]"}`)),
		p.do("PUT", "/Users/"+ada, `{"userName":"ada","groups":[]}`),
	} {
		if a.status != http.StatusOK || len(a.body["groups"].([]any)) != 3 {
			t.Errorf("answered %d: %s", a.status, a.raw)
		}
	}
	// A deleted group ends the memberships that lead through it.
	p.do("DELETE", "/Groups/"+middle, "")
	p.wantJSON(p.do("GET", "/Agents/"+agent, "").body, `{"groups":[{"value":"`+inner+`"}]}`)
}

func TestMembers_AcceptUsersAgentsAndGroups(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada","displayName":"Ada"}`)
	agent := p.create("/Agents", `{"agentUserName":"writer","owners":["`+ada+`"]}`)
	inner := p.create("/Groups", `{"displayName":"inner"}`)
	team := p.create("/Groups", `{"displayName":"team","members":[{"value":"`+ada+`"},{"value":"`+agent+`"},{"value":"`+inner+`"},{"value":"`+ada+`"}]}`)
	p.wantJSON(p.do("GET", "/Groups/"+team, "").body, `{"members":[{"value":"`+ada+`","type":"User","display":"Ada","$ref":"`+p.url+"/Users/"+ada+`"},{"type":"Agent","display":"writer"},{"type":"Group"}]}`)
	for name, c := range map[string]struct{ operation, want string }{
		"the group itself":            {`{"op":"add","path":"members","value":"` + team + `"}`, `{"scimType":"invalidValue"}`},
		"an unknown id":               {`{"op":"add","path":"members","value":["` + ada + `","00000000-0000-4000-8000-000000000000"]}`, `{"scimType":"invalidValue","detail":"members: no resource has the id 00000000-0000-4000-8000-000000000000"}`},
		"not a UUID":                  {`{"op":"add","path":"members","value":"ada"}`, `{"scimType":"invalidValue","detail":"members: no resource has the id ada"}`},
		"another value for a member":  {`{"op":"replace","path":"members[value eq \"` + ada + `\"].value","value":"` + agent + `"}`, `{"scimType":"mutability"}`},
		"replacing without value eq":  {`{"op":"replace","path":"members[type eq \"User\"]","value":{"value":"` + agent + `"}}`, `{"scimType":"noTarget"}`},
		"replacing by another member": {`{"op":"replace","path":"members[value eq \"` + ada + `\"]","value":{"value":"` + agent + `"}}`, `{"scimType":"mutability"}`},
	} {
		a := p.do("PATCH", "/Groups/"+team, patchBody(c.operation))
		if a.status != http.StatusBadRequest {
			t.Errorf("%s answered %d: %s", name, a.status, a.raw)
		}
		p.wantJSON(a.body, c.want)
	}
	for _, operation := range []string{
		`{"op":"remove","path":"members","value":["nobody"]}`, `{"op":"remove","path":"members[value eq \"nobody\"]"}`,
		`{"op":"add","path":"members[value eq \"` + ada + `\"]","value":{"display":"x"}}`, `{"op":"replace","path":"members[value eq \"` + ada + `\"].display","value":"x"}`,
	} {
		if a := p.do("PATCH", "/Groups/"+team, patchBody(operation)); a.status != http.StatusOK || a.header.Get("ETag") != `W/"1"` {
			t.Errorf("%s answered %d %s: %s", operation, a.status, a.header.Get("ETag"), a.raw)
		}
	}
	other := p.create("/Agents", `{"agentUserName":"other","owners":["`+ada+`"]}`)
	if a := p.do("PATCH", "/Groups/"+team, patchBody(`{"op":"add","path":"members","value":"`+other+`"},{"op":"remove","path":"members[type eq \"Agent\" and display eq \"other\"]"}`)); len(a.body["members"].([]any)) != 3 {
		t.Errorf("a filter does not match a member that was added before it: %s", a.raw)
	}
	p.wantJSON(p.do("PATCH", "/Groups/"+team, patchBody(`{"op":"remove","path":"members[type eq \"Agent\" or display sw \"inn\"]"}`)).body, `{"members":[{"value":"`+ada+`"}]}`)
}

func TestGroups_ParallelRenamesAndMembershipsAllApply(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	team := p.create("/Groups", `{"displayName":"team"}`)
	var ids []string
	for i := range 16 {
		ids = append(ids, p.create("/Users", fmt.Sprintf(`{"userName":"u%d"}`, i)))
	}
	p.do("PATCH", "/Groups/"+team, patchBody(`{"op":"add","path":"members","value":["`+strings.Join(ids[:8], `","`)+`"]}`))
	var mu sync.Mutex
	named := map[string]bool{}
	var all sync.WaitGroup
	for i, id := range ids {
		all.Go(func() {
			operation := `{"op":"add","path":"members","value":"` + id + `"}`
			if i < 8 {
				operation = `{"op":"remove","path":"members[value eq \"` + id + `\"]"}`
			}
			if i%4 == 0 {
				operation = fmt.Sprintf(`{"op":"replace","path":"displayName","value":"team %d"},`, i) + operation
			}
			a := p.do("PATCH", "/Groups/"+team, patchBody(operation))
			if a.status != http.StatusOK {
				t.Errorf("answered %d: %s", a.status, a.raw)
			}
			// The name in a response must be that of its version, even if another request changed it.
			mu.Lock()
			defer mu.Unlock()
			named[a.header.Get("ETag")+fmt.Sprint(a.body["displayName"])] = true
		})
	}
	all.Wait()
	a := p.do("GET", "/Groups/"+team, "")
	if got := len(a.body["members"].([]any)); got != 8 || a.body["displayName"] == "team" {
		t.Errorf("%d members of %v, want 8", got, a.body["displayName"])
	}
	if !named[a.header.Get("ETag")+fmt.Sprint(a.body["displayName"])] {
		t.Errorf("no response had the version %s with the name %v: %v", a.header.Get("ETag"), a.body["displayName"], named)
	}
	if a.header.Get("ETag") != `W/"18"` {
		t.Errorf("version %s, want one for each of 17 changes", a.header.Get("ETag"))
	}
}

// TestGroups_50000MembersAreNotLoaded reads, changes and lists a group of 50,000 members and
// checks that its members are not loaded.
func TestGroups_50000MembersAreNotLoaded(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a group of 50,000")
	}
	p := newProvider(t, tenant.ProfileEntra)
	team := p.create("/Groups", `{"displayName":"team"}`)
	const n = 50_000
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, p.database.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range []string{
		`insert into resources (tenant_id, id, type, unique_name, display_name, document, created_at, modified_at)
		 select tenant_id, gen_random_uuid(), 'User', 'u' || i, 'u' || i, jsonb_build_object('userName', 'u' || i), now(), now() from resources, generate_series(1, ` + fmt.Sprint(n) + `) i`,
		`insert into edges select g.tenant_id, g.id, 'members', u.id from resources g join resources u on u.type = 'User' where g.type = 'Group'`,
		`analyze`,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	grown := func(what string, do func()) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do()
		runtime.ReadMemStats(&after)
		if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > 4 {
			t.Errorf("%s allocated %d MiB", what, mib)
		}
	}
	member := p.create("/Users", `{"userName":"late"}`)
	grown("a membership PATCH", func() {
		if a := p.do("PATCH", "/Groups/"+team, patchBody(`{"op":"add","path":"members","value":[{"value":"`+member+`"}]}`)); a.status != http.StatusNoContent {
			t.Fatalf("answered %d: %s", a.status, a.raw)
		}
	})
	grown("a read without members", func() { p.do("GET", "/Groups/"+team+"?excludedAttributes=members", "") })
	grown("a filter by one member", func() {
		if a := p.do("GET", `/Groups?filter=id%20eq%20%22`+team+`%22%20and%20members%20eq%20%22`+member+`%22&attributes=id`, ""); a.body["totalResults"] != 1.0 {
			t.Errorf("%s", a.raw)
		}
	})
	for path, list := range map[string]func(answer) map[string]any{
		"/Groups/" + team: func(a answer) map[string]any { return a.body },
		"/Groups":         func(a answer) map[string]any { return a.body["Resources"].([]any)[0].(map[string]any) },
	} {
		a := p.do("GET", path, "")
		met := map[string]bool{}
		for _, m := range list(a)["members"].([]any) {
			met[m.(map[string]any)["value"].(string)] = true
		}
		if len(met) != n+1 {
			t.Errorf("%s returned %d members, want %d", path, len(met), n+1)
		}
	}
	p.do("PATCH", "/Groups/"+team, patchBody(`{"op":"replace","path":"members","value":[{"value":"`+member+`"}]}`))
	p.wantJSON(p.do("GET", "/Groups/"+team, "").body, `{"members":[{"value":"`+member+`"}]}`)
}
