package scim_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/tenant"
)

// bugs are bugs that other products shipped, each with a test that leaver does not have it.
// Bugs that need the whole product to reproduce are in internal/e2e.
var bugs = []struct {
	name string
	test func(t *testing.T, p *provider)
}{
	{"1 Grafana CVE-2025-41115: an externalId became an internal id", func(t *testing.T, p *provider) {
		first := p.create("/Users", `{"userName":"admin"}`)
		second := p.create("/Users", `{"userName":"mallory","externalId":"`+first+`"}`)
		if second == first || p.do("GET", "/Users/"+first, "").body["userName"] != "admin" {
			t.Error("the externalId names another user")
		}
		if a := p.do("GET", "/Users/1", ""); a.status != http.StatusNotFound {
			t.Errorf("an id that is an external one answered %d", a.status)
		}
	}},
	{"3 scim-patch CVE-2026-48170: dotted keys polluted the prototype", func(t *testing.T, p *provider) {
		id := p.create("/Users", `{"userName":"ada"}`)
		for key, status := range map[string]int{"__proto__.polluted": 400, "constructor.prototype.y": 400, "name.__proto__": 200, "__proto__": 400, "toString": 200} {
			a := p.do("PATCH", "/Users/"+id, patchBody(`{"op":"add","value":{"`+key+`":"x"}}`))
			if a.status != status {
				t.Errorf("%s answered %d: %s", key, a.status, a.raw)
			}
		}
		var stored string
		if err := p.row(`select document::text from resources where id = $1`, id).Scan(&stored); err != nil || stored != `{"userName": "ada"}` {
			t.Errorf("stored %s (%v)", stored, err)
		}
	}},
	{"4 Bitwarden CVE-2026-43640: the SCIM key could be read again", func(t *testing.T, p *provider) {
		var stored string
		if err := p.row(`select row_to_json(t)::text from tokens t`).Scan(&stored); err != nil || strings.Contains(stored, p.token) {
			t.Errorf("the token is stored in its row (%v)", err)
		}
	}},
	{"6 GitLab CVE-2022-1680: an account was adopted by its e-mail", func(t *testing.T, p *provider) {
		ada := p.create("/Users", `{"userName":"ada","emails":[{"value":"ada@example.com"}]}`)
		other := p.create("/Users", `{"userName":"mallory","emails":[{"value":"ada@example.com"}]}`)
		if ada == other {
			t.Error("the second user is the first")
		}
	}},
	{"7 Keycloak #46658: PUT checked the path's id and updated the body's", func(t *testing.T, p *provider) {
		ada, bob := p.create("/Users", `{"userName":"ada"}`), p.create("/Users", `{"userName":"bob"}`)
		if a := p.do("PUT", "/Users/"+ada, `{"id":"`+bob+`","userName":"changed"}`); a.status != http.StatusBadRequest {
			t.Errorf("answered %d", a.status)
		}
		p.do("PATCH", "/Users/"+ada, patchBody(`{"op":"replace","value":{"id":"`+bob+`","title":"x"}}`))
		p.wantJSON(p.do("GET", "/Users/"+bob, "").body, `{"userName":"bob","title":"<absent>"}`)
	}},
	{"8 Keycloak #47536, #50473: a guard protected only one write path", func(t *testing.T, p *provider) {
		ada := p.create("/Users", `{"userName":"ada"}`)
		agent := p.create("/Agents", `{"agentUserName":"writer","owners":["`+ada+`"],"active":true}`)
		p.do("PATCH", "/Agents/"+agent, patchBody(`{"op":"replace","path":"active","value":false}`))
		back := `{"agentUserName":"writer","owners":["` + ada + `"],"active":true}`
		for what, status := range map[string]int{
			"PUT":                 p.do("PUT", "/Agents/"+agent, back).status,
			"PATCH with a path":   p.do("PATCH", "/Agents/"+agent, patchBody(`{"op":"replace","path":"active","value":"True"}`)).status,
			"PUT for any version": p.do("PUT", "/Agents/"+agent, back, "If-Match", "*").status,
			"PATCH without one":   p.do("PATCH", "/Agents/"+agent, patchBody(`{"op":"add","value":{"active":true}}`)).status,
		} {
			if status != http.StatusConflict {
				t.Errorf("%s reactivated an agent without its version, answered %d", what, status)
			}
		}
		if a := p.do("POST", "/Bulk", bulkBody(`{"method":"PUT","path":"/Agents/`+agent+`","data":`+back+`}`)); a.body["Operations"].([]any)[0].(map[string]any)["status"] != "409" {
			t.Errorf("bulk: %s", a.raw)
		}
	}},
	{"9 Keycloak #52672, #50987: counts and filters revealed unreadable data", func(t *testing.T, p *provider) {
		p.declare("User", claimsSchema)
		id := p.create("/Users", `{"userName":"ada","password":"secret","`+claims+`":{"pin":"1234"}}`)
		for _, query := range []string{"filter=password+pr", "filter=" + claims + ":pin+sw+%221%22", "sortBy=" + claims + ":pin", "sortBy=password"} {
			if a := p.do("GET", "/Users?"+query, ""); a.status != http.StatusBadRequest {
				t.Errorf("%s answered %d: %s", query, a.status, a.raw)
			}
		}
		p.do("DELETE", "/Users/"+id, "")
		p.wantJSON(p.do("GET", "/Users?filter=userName+eq+%22ada%22", "").body, `{"totalResults":0,"Resources":[]}`)
		p.wantJSON(p.do("GET", "/Users?count=0", "").body, `{"totalResults":0}`)
	}},
	{"10 Keycloak #46705: one unpaged GET filled the heap", func(t *testing.T, p *provider) {
		operations := make([]string, 600)
		for i := range operations {
			operations[i] = fmt.Sprintf(`{"method":"POST","path":"/Users","bulkId":"%d","data":{"userName":"u%d"}}`, i, i)
		}
		p.do("POST", "/Bulk", bulkBody(strings.Join(operations, ",")))
		for query, want := range map[string]string{"": "100", "?count=1000000": "500", "?cursor&count=1000000": "500"} {
			p.wantJSON(p.do("GET", "/Users"+query, "").body, `{"totalResults":600,"itemsPerPage":`+want+`}`)
		}
	}},
	{"11 Passbolt 2026: check-then-insert created duplicates", func(t *testing.T, p *provider) {
		p.declare("User", claimsSchema)
		var mu sync.Mutex
		counts := map[int]int{}
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				a := p.do("POST", "/Users", fmt.Sprintf(`{"userName":"u%d","%s":{"badge":"the one"}}`, i, claims))
				mu.Lock()
				defer mu.Unlock()
				counts[a.status]++
			})
		}
		all.Wait()
		if counts[201] != 1 || counts[409] != 49 {
			t.Errorf("statuses %v, want one 201 and 49 times 409", counts)
		}
	}},
	{"12 Passbolt, Sourcegraph #49414: weak tokens, compared with ==", func(t *testing.T, p *provider) {
		_, other, err := p.auth.Issue(t.Context(), p.tenant.ID, auth.NewToken{Class: auth.ClassSCIM})
		if err != nil || len(p.token) < 50 || p.token[12:30] == other[12:30] {
			t.Errorf("tokens of %d and %d characters (%v)", len(p.token), len(other), err)
		}
		for _, token := range []string{p.token[:len(p.token)-1], p.token + "A", strings.ToLower(p.token), "leaver_scim_"} {
			if a := p.do("GET", "/Users", "", "Authorization", "Bearer "+token); a.status != http.StatusUnauthorized {
				t.Errorf("an almost valid token answered %d", a.status)
			}
		}
	}},
	{"14 Langfuse #16027: the POSTed password became a login", func(t *testing.T, p *provider) {
		id := p.create("/Users", `{"userName":"ada","password":"pass-canary"}`)
		p.do("PATCH", "/Users/"+id, patchBody(`{"op":"replace","path":"password","value":"pass-canary"}`))
		p.do("PUT", "/Users/"+id, `{"userName":"ada","password":"pass-canary"}`)
		var found int
		if err := p.row(`select count(*) from resources r where row_to_json(r)::text like '%pass-canary%'`).Scan(&found); err != nil || found != 0 {
			t.Errorf("the password is stored (%v)", err)
		}
		p.wantJSON(p.do("GET", "/Users/"+id+"?attributes=password", "").body, `{"password":"<absent>","id":"`+id+`"}`)
	}},
	{"15 Langfuse #13528, Polis #4065: one casing was checked, another written", func(t *testing.T, p *provider) {
		id := p.create("/Users", `{"userName":"Ada@Example.com"}`)
		if a := p.do("POST", "/Users", `{"userName":"aDA@eXAMPLE.COM"}`); a.status != http.StatusConflict {
			t.Errorf("answered %d", a.status)
		}
		p.wantJSON(p.do("GET", "/Users?filter=userName+eq+%22ADA@example.com%22", "").body, `{"totalResults":1,"Resources":[{"id":"`+id+`","userName":"Ada@Example.com"}]}`)
		if a := p.do("PATCH", "/Users/"+id, patchBody(`{"op":"replace","path":"userName","value":"ada@example.com"}`)); a.body["userName"] != "ada@example.com" {
			t.Errorf("changing the case of the name answered %d: %s", a.status, a.raw)
		}
	}},
	{"17 Cogtrix #122, OneUptime #3852, ssoready #155: active=false answered 200 and was ignored", func(t *testing.T, p *provider) {
		for i, request := range []string{
			`PATCH {"op":"replace","path":"active","value":false}`, `PATCH {"op":"Replace","path":"active","value":"False"}`, `PATCH {"op":"replace","value":{"active":false}}`,
			`PATCH {"op":"add","path":"active","value":false}`, `PATCH {"op":"REPLACE","path":"ACTIVE","value":"false"}`, `PATCH {"op":"replace","path":"urn:ietf:params:scim:schemas:core:2.0:User:active","value":false}`,
			`PATCH {"op":"replace","value":{"urn:ietf:params:scim:schemas:core:2.0:User:active":"False"}}`, `PATCH {"op":"replace","value":{"urn:ietf:params:scim:schemas:core:2.0:User":{"active":false}}}`,
			`PUT {"userName":"%s","active":false}`, `PUT {"userName":"%s","active":"False"}`, `DELETE `,
		} {
			name := fmt.Sprint("u", i)
			id := p.create("/Users", `{"userName":"`+name+`","active":true}`)
			method, body, _ := strings.Cut(request, " ")
			if method == "PATCH" {
				body = patchBody(body)
			}
			if a := p.do(method, "/Users/"+id, strings.ReplaceAll(body, "%s", name)); a.status > 299 || !p.restricted(id) {
				t.Errorf("%s answered %d, restricted %t: %s", request, a.status, p.restricted(id), a.raw)
			}
		}
	}},
	{"18 agent-bom #3688, langwatch #7136, authentik #15046, FusionAuth #2834: removing one member removed all", func(t *testing.T, p *provider) {
		ada, bob := p.create("/Users", `{"userName":"ada"}`), p.create("/Users", `{"userName":"bob"}`)
		team := p.create("/Groups", `{"displayName":"team","members":["`+ada+`","`+bob+`"]}`)
		for _, operation := range []string{
			`{"op":"remove","path":"members","value":[]}`, `{"op":"remove","path":"members","value":[{"value":"nobody"}]}`, `{"op":"remove","path":"members[value eq \"nobody\"]"}`,
			`{"op":"add","path":"members","value":[]}`, `{"op":"remove","path":"members","value":{"value":"00000000-0000-4000-8000-000000000000"}}`,
		} {
			if a := p.do("PATCH", "/Groups/"+team, patchBody(operation)); a.status != http.StatusOK || len(a.body["members"].([]any)) != 2 {
				t.Errorf("%s: %d %s", operation, a.status, a.raw)
			}
		}
		p.wantJSON(p.do("PATCH", "/Groups/"+team, patchBody(`{"op":"remove","path":"members","value":[{"value":"`+bob+`"}]}`)).body, `{"members":[{"value":"`+ada+`"}]}`)
	}},
	{"19 better-auth #6639: the default provider's token was never compared", func(t *testing.T, p *provider) {
		for _, root := range []string{p.root + "/scim/v2", p.root + "/t/acme/scim/v2"} {
			p.url = root
			for _, token := range []string{"", "x", "Bearer", "leaver_scim_" + strings.Repeat("A", 43)} {
				if a := p.do("GET", "/Users", "", "Authorization", "Bearer "+token); a.status != http.StatusUnauthorized {
					t.Errorf("%s with %q answered %d", root, token, a.status)
				}
			}
		}
	}},
	{"20 Polis: an unknown directory answered 200; totalResults was the page's", func(t *testing.T, p *provider) {
		for i := range 3 {
			p.create("/Users", fmt.Sprintf(`{"userName":"u%d"}`, i))
		}
		p.wantJSON(p.do("GET", "/Users?count=2", "").body, `{"totalResults":3,"itemsPerPage":2}`)
		p.wantJSON(p.do("GET", "/Users?count=2&startIndex=3", "").body, `{"totalResults":3,"itemsPerPage":1,"startIndex":3}`)
		p.wantJSON(p.do("GET", "/Users?count=2&startIndex=9", "").body, `{"totalResults":3,"itemsPerPage":0,"startIndex":9}`)
		p.url = p.root + "/t/nobody/scim/v2"
		if a := p.do("GET", "/Users", ""); a.status != http.StatusUnauthorized {
			t.Errorf("an unknown tenant answered %d", a.status)
		}
	}},
	{"21 Yuzu #2127: renaming a group did not re-evaluate roles", func(t *testing.T, p *provider) {
		team := p.create("/Groups", `{"displayName":"team"}`)
		p.starter.kinds(team)
		p.do("PATCH", "/Groups/"+team, patchBody(`{"op":"replace","path":"displayName","value":"renamed"}`))
		if kinds := p.starter.kinds(team); len(kinds) != 1 || kinds[0] != "team-sync" {
			t.Errorf("started %v", kinds)
		}
	}},
	{"22 snipe-it #14597: a deactivation failed on an unrelated field", func(t *testing.T, p *provider) {
		id := p.create("/Users", `{"userName":"ada","active":true,"title":"x"}`)
		// The schema becomes stricter than the stored value.
		p.declare("User", `{"id":"`+claims+`","attributes":[{"name":"level","type":"string"}]}`)
		p.do("PATCH", "/Users/"+id, patchBody(`{"op":"add","path":"`+claims+`:level","value":"odd"}`))
		p.declare("User", `{"id":"`+claims+`","attributes":[{"name":"level","type":"string","canonicalValues":["low","high"]},{"name":"since","type":"dateTime","required":true}]}`)
		if a := p.do("PATCH", "/Users/"+id, patchBody(`{"op":"replace","path":"active","value":false}`)); a.status != http.StatusOK || !p.restricted(id) {
			t.Errorf("answered %d, restricted %t: %s", a.status, p.restricted(id), a.raw)
		}
	}},
	{"23 Doyensec 2025: bulk raced its own order, and wrote internals", func(t *testing.T, p *provider) {
		a := p.do("POST", "/Bulk", bulkBody(`{"method":"POST","path":"/Groups","bulkId":"g","data":{"displayName":"g","members":["bulkId:u"]}},
			{"method":"POST","path":"/Users","bulkId":"u","data":{"userName":"u","id":"00000000-0000-4000-8000-000000000000","meta":{"version":"W/\"9\""},"plain":false,"tenant_id":"x","`+
			`urn:leaver:params:scim:schemas:extension:lifecycle:1.0:Principal":{"survivors":7}}}`))
		p.wantJSON(a.body, `{"Operations":[{"status":"201"},{"status":"201","version":"W/\"1\""}]}`)
		p.wantJSON(p.do("GET", "/Users?filter=userName+eq+%22u%22", "").body, `{"Resources":[{"plain":"<absent>","tenant_id":"<absent>","urn:leaver:params:scim:schemas:extension:lifecycle:1.0:Principal":"<absent>"}]}`)
	}},
}

func TestVendorBugs_DoNotReproduce(t *testing.T) {
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			b.test(t, newProvider(t, tenant.ProfileDefault))
		})
	}
}
