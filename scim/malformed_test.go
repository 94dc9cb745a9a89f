package scim_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim/schema"
)

// wantRefused fails unless a request is answered 400 with the scimType.
func (p *provider) wantRefused(method, path, body, scimType string) {
	p.t.Helper()
	if a := p.do(method, path, body); a.status != http.StatusBadRequest || a.body["scimType"] != scimType {
		p.t.Errorf("%s %s %s answered %d, want 400 %s: %s", method, path, body, a.status, scimType, a.raw)
	}
}

func (p *provider) wantOK(method, path, body string) answer {
	p.t.Helper()
	a := p.do(method, path, body)
	if a.status/100 != 2 {
		p.t.Errorf("%s %s %s answered %d: %s", method, path, body, a.status, a.raw)
	}
	return a
}

func find(p *provider, endpoint, filter string) answer {
	return p.do("GET", endpoint+"?filter="+url.QueryEscape(filter), "")
}

func TestMembers_ElementWithoutValueIsRefused(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada"}`)
	team := p.create("/Groups", `{"displayName":"team","members":["`+ada+`"]}`)
	agent := p.create("/Agents", `{"agentUserName":"bot","owners":["`+ada+`"]}`)
	for _, elements := range []string{
		`[{"value":null}]`, `[{}]`, `[{"value":""}]`, `[{"display":"x"}]`, `[null]`, `[""]`, `[{"value":"` + ada + `"},{}]`, `[{"$ref":"nowhere"}]`,
		`[{"$ref":"https://x.example/scim/v2/Printers/` + ada + `"}]`, `{"value":null}`,
	} {
		p.wantRefused("PATCH", "/Groups/"+team, patchBody(`{"op":"replace","path":"members","value":`+elements+`}`), "invalidValue")
		p.wantRefused("PATCH", "/Groups/"+team, patchBody(`{"op":"add","value":{"members":`+elements+`}}`), "invalidValue")
		p.wantRefused("PATCH", "/Groups/"+team, patchBody(`{"op":"remove","path":"members","value":`+elements+`}`), "invalidValue")
		p.wantRefused("PUT", "/Groups/"+team, `{"displayName":"team","members":`+elements+`}`, "invalidValue")
		p.wantRefused("POST", "/Groups", `{"displayName":"other","members":`+elements+`}`, "invalidValue")
		p.wantRefused("PUT", "/Agents/"+agent, `{"agentUserName":"bot","owners":`+elements+`}`, "invalidValue")
		p.wantRefused("PATCH", "/Agents/"+agent, patchBody(`{"op":"replace","path":"owners","value":`+elements+`}`), "invalidValue")
	}
	for _, parent := range []string{`{"value":""}`, `{}`, `{"display":"x"}`, `""`} {
		p.wantRefused("PATCH", "/Agents/"+agent, patchBody(`{"op":"add","path":"parent","value":`+parent+`}`), "invalidValue")
	}
	for _, parent := range []string{`[null]`, `["` + agent + `","` + agent + `"]`} {
		p.wantRefused("PATCH", "/Agents/"+agent, patchBody(`{"op":"replace","path":"parent","value":`+parent+`}`), "invalidValue")
	}
	for _, operation := range []string{
		`{"op":"replace","path":"owners[value eq \"` + ada + `\"].value","value":null}`, `{"op":"replace","path":"owners.value","value":""}`,
		`{"op":"remove","path":"owners.value"}`, `{"op":"remove","path":"owners[value eq \"` + ada + `\"].value"}`,
	} {
		p.wantRefused("PATCH", "/Agents/"+agent, patchBody(operation), "mutability")
	}
	p.wantJSON(p.do("GET", "/Groups/"+team, "").body, `{"members":[{"value":"`+ada+`"}],"meta":{"version":"W/\"1\""}}`)
	p.wantJSON(p.do("GET", "/Agents/"+agent, "").body, `{"owners":[{"value":"`+ada+`"}],"meta":{"version":"W/\"1\""}}`)
}

// TestLists_KeepTheRuleOfOneElementInPATCH makes two elements equal, removes one by another spelling of its value, and
// empties a list by null.
func TestLists_KeepTheRuleOfOneElementInPATCH(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada","emails":[{"value":"a@x","type":"work"},{"value":"b@x","type":"home"}]}`)
	p.do("PATCH", "/Users/"+ada, patchBody(`{"op":"replace","path":"emails[type eq \"home\"].value","value":"a@x"},{"op":"replace","path":"emails[type eq \"home\"].type","value":"work"}`))
	p.wantJSON(p.do("GET", "/Users/"+ada, "").body, `{"emails":[{"value":"a@x","type":"work"}]}`)
	p.wantRefused("PATCH", "/Users/"+ada, patchBody(`{"op":"replace","path":"emails","value":[null]}`), "invalidValue")
	p.create("/Users", `{"userName":"eve","emails":[null]}`) // which has nothing to lose
	p.do("PATCH", "/Users/"+ada, patchBody(`{"op":"replace","path":"roles","value":[{"value":"Caf\u00e9"},{"value":"other","type":"Team"}]}`))
	p.do("PATCH", "/Users/"+ada, patchBody(`{"op":"remove","path":"roles","value":[{"value":"cafe\u0301"}]},{"op":"remove","path":"roles","value":[{"type":"TEAM"}]}`))
	p.wantJSON(p.do("GET", "/Users/"+ada, "").body, `{"roles":"<absent>"}`)
}

func TestMembers_RefReplacesMissingValue(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada"}`)
	for _, ref := range []string{p.url + "/Users/" + ada, "../Users/" + ada, "Users/" + ada, "https://other.example/scim/v2/Users/" + ada + "/"} {
		team := p.create("/Groups", `{"displayName":"team","members":[{"$ref":"`+ref+`"}]}`)
		p.wantJSON(p.do("GET", "/Groups/"+team, "").body, `{"members":[{"value":"`+ada+`"}]}`)
	}
	agent := p.create("/Agents", `{"agentUserName":"bot","owners":[{"$ref":"../Users/`+ada+`"}]}`)
	p.wantJSON(p.do("GET", "/Agents/"+agent, "").body, `{"owners":[{"value":"`+ada+`"}]}`)
}

func TestSchemas_EdgesAreWritable(t *testing.T) {
	for attribute, rt := range map[string]*schema.ResourceType{"members": schema.GroupType(), "owners": schema.AgentType(), "parent": schema.AgentType()} {
		for _, a := range rt.Schema.Attributes {
			if a.Name != attribute {
				continue
			}
			value, ref := a.SubAttributes[0], a.SubAttributes[1]
			if value.Name != "value" || !value.Required || value.Mutability != schema.Immutable || ref.Name != "$ref" || ref.Mutability != schema.Immutable {
				t.Errorf("%s declares %+v and %+v", attribute, value, ref)
			}
		}
	}
}

func TestFilter_OnlyDoubleQuotesAreAccepted(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"jyoung","externalId":"jyoung"}`)
	for _, filter := range []string{`userName eq 'x'`, `userName eq ‘x’`, "userName eq `x`", `externalId eq “x”`, `emails[type eq 'work'].value eq "x"`, `userName eq 'a b'`} {
		if a := find(p, "/Users", filter); a.status != http.StatusBadRequest || a.body["scimType"] != "invalidFilter" {
			t.Errorf("%s answered %d: %s", filter, a.status, a.raw)
		}
	}
	p.wantJSON(find(p, "/Users", `externalId eq jyoung`).body, `{"totalResults":1}`) // as Entra sends it
	for _, path := range []string{`emails[type eq 'work'].value`, `emails[type eq 'work']`, `emails[type eq ‘work’].value`} {
		p.wantRefused("PATCH", "/Users/"+id, patchBody(`{"op":"add","path":"`+path+`","value":"a@b.c"}`), "invalidPath")
	}
}

func TestEmails_DuplicatesAreMerged(t *testing.T) {
	const twice = `[{"type":"work","value":"a@b.c"},{"type":"Work","value":"A@B.C","primary":true},{"type":"home","value":"a@b.c"}]`
	const once = `{"emails":[{"value":"A@B.C","primary":true},{"type":"home"}]}`
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"ada","emails":`+twice+`}`)
	check := func(how string, a answer) {
		t.Helper()
		if emails, _ := a.body["emails"].([]any); len(emails) != 2 {
			t.Errorf("%s: %d elements: %s", how, len(emails), a.raw)
		}
		p.wantJSON(a.body, once)
	}
	check("POST", p.do("GET", "/Users/"+id, ""))
	check("PUT", p.wantOK("PUT", "/Users/"+id, `{"userName":"ada","emails":`+twice+`}`))
	check("replace", p.wantOK("PATCH", "/Users/"+id, patchBody(`{"op":"replace","path":"emails","value":`+twice+`}`)))
	check("add", p.wantOK("PATCH", "/Users/"+id, patchBody(`{"op":"add","path":"emails","value":`+twice+`}`)))
}

func TestPatch_UnassignedValueCreatesNoElement(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"ada"}`)
	for _, value := range []string{"null", `""`} {
		a := p.wantOK("PATCH", "/Users/"+id, patchBody(`{"op":"Replace","path":"phoneNumbers[type eq \"mobile\"].value","value":`+value+`}`))
		p.wantJSON(a.body, `{"phoneNumbers":"<absent>","meta":{"version":"W/\"1\""}}`)
	}
	for _, clear := range []string{
		`{"op":"replace","path":"phoneNumbers[type eq \"mobile\"].value","value":null}`, `{"op":"replace","path":"phoneNumbers[type eq \"mobile\"].value","value":""}`,
		`{"op":"remove","path":"phoneNumbers[type eq \"mobile\"].value"}`,
	} {
		p.wantOK("PUT", "/Users/"+id, `{"userName":"ada","phoneNumbers":[{"type":"mobile","value":"1","primary":true}]}`)
		p.wantJSON(p.wantOK("PATCH", "/Users/"+id, patchBody(clear)).body, `{"phoneNumbers":"<absent>"}`)
	}
	a := p.wantOK("PUT", "/Users/"+id, `{"userName":"ada","phoneNumbers":[{"type":"mobile","value":null},{"type":"work","value":""}]}`)
	p.wantJSON(a.body, `{"phoneNumbers":"<absent>"}`)
}

func TestHead_AnswersAsGetWithoutABody(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"ada"}`)
	for path, status := range map[string]int{
		"/Users": 200, "/Users/" + id: 200, "/Groups": 200, "/ServiceProviderConfig": 200, "/Schemas": 200, "/ResourceTypes": 200,
		"/Users/00000000-0000-4000-8000-000000000000": 404,
	} {
		if a := p.do("HEAD", path, ""); a.status != status || len(a.raw) > 0 || a.header.Get("Content-Type") != "application/scim+json" {
			t.Errorf("HEAD %s answered %d with %d bytes of %s", path, a.status, len(a.raw), a.header.Get("Content-Type"))
		}
	}
}

func TestStrict_PatchOfReadOnlyAttributesIsRefused(t *testing.T) {
	p := newProvider(t, tenant.ProfileStrict)
	id := p.create("/Users", `{"userName":"ada"}`)
	for _, path := range []string{
		"groups", "id", "meta.created", "meta", "urn:leaver:params:scim:schemas:extension:lifecycle:1.0:Principal",
		"urn:leaver:params:scim:schemas:extension:lifecycle:1.0:Principal:survivors",
	} {
		p.wantRefused("PATCH", "/Users/"+id, patchBody(`{"op":"replace","path":"`+path+`","value":"x"}`), "mutability")
		p.wantRefused("PATCH", "/Users/"+id, patchBody(`{"op":"remove","path":"`+path+`"}`), "mutability")
	}
}

func TestPath_ExtraSlashesAreIgnored(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"ada"}`)
	for _, base := range []string{p.root + "/scim/v2", p.root + "/t/acme/scim/v2"} {
		p.url = base
		for _, path := range []string{"/Users/?filter=" + url.QueryEscape(`userName eq "ada"`), "//Users", "/Users/", "//Users//" + id + "/", "/Schemas/", "/"} {
			p.wantOK("GET", path, "")
		}
	}
}

func TestEntra_GroupNamesAreUnique(t *testing.T) {
	p := newProvider(t, tenant.ProfileEntra)
	first := p.create("/Groups", `{"displayName":"team","externalId":"1"}`)
	if a := p.do("POST", "/Groups", `{"displayName":"Team","externalId":"1"}`); a.status != http.StatusConflict || a.body["scimType"] != "uniqueness" {
		t.Errorf("answered %d: %s", a.status, a.raw)
	}
	other := p.create("/Groups", `{"displayName":"other"}`)
	if a := p.do("PATCH", "/Groups/"+other, patchBody(`{"op":"replace","path":"displayName","value":"team"}`)); a.status != http.StatusConflict {
		t.Errorf("a rename answered %d: %s", a.status, a.raw)
	}
	p.wantOK("PATCH", "/Groups/"+first, patchBody(`{"op":"replace","path":"displayName","value":"TEAM"}`))
	p.wantOK("DELETE", "/Groups/"+first, "")
	p.create("/Groups", `{"displayName":"team"}`)
}

func TestAgents_NeedNoOwner(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	agent := p.create("/Agents", `{"agentUserName":"bot"}`)
	ada := p.create("/Users", `{"userName":"ada"}`)
	p.wantJSON(p.wantOK("PATCH", "/Agents/"+agent, patchBody(`{"op":"add","path":"owners","value":[{"value":"`+ada+`"}]}`)).body,
		`{"owners":[{"value":"`+ada+`"}]}`)
}

func TestGroups_PutWithoutMembersKeepsThem(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada"}`)
	team := p.create("/Groups", `{"displayName":"team","members":["`+ada+`"]}`)
	p.wantJSON(p.wantOK("PUT", "/Groups/"+team, `{"displayName":"renamed"}`).body, `{"displayName":"renamed","members":[{"value":"`+ada+`"}]}`)
	p.wantJSON(p.wantOK("PUT", "/Groups/"+team, `{"displayName":"renamed","members":[]}`).body, `{"members":"<absent>"}`)
}

func TestGroups_BodyOver1MiBIsAccepted(t *testing.T) {
	if testing.Short() {
		t.Skip("creates 12,000 users")
	}
	p := newProvider(t, tenant.ProfileDefault)
	const n = 12_000
	conn := p.connect()
	if _, err := conn.Exec(t.Context(), `insert into resources (tenant_id, id, type, unique_name, document, folded, created_at, modified_at)
		select $1, gen_random_uuid(), 'User', 'u' || i, '{}', '{}', now(), now() from generate_series(1, $2) i`, p.tenant.ID, n); err != nil {
		t.Fatal(err)
	}
	var members string
	if err := conn.QueryRow(t.Context(), `select json_agg(json_build_object('value', id, 'display', repeat('x', 40)))::text
		from resources where tenant_id = $1`, p.tenant.ID).Scan(&members); err != nil {
		t.Fatal(err)
	}
	team := p.create("/Groups", `{"displayName":"team"}`)
	p.wantOK("PUT", "/Groups/"+team+"?excludedAttributes=members", `{"displayName":"team","members":`+members+`}`)
	var stored int
	if err := p.row(`select count(*) from edges where source_id = $1`, team).Scan(&stored); err != nil || stored != n {
		t.Errorf("%d members are stored, want %d (%v)", stored, n, err)
	}
	if a := p.do("PUT", "/Groups/"+team, `{"displayName":"`+strings.Repeat("x", 17<<20)+`"}`); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("17 MiB answered %d", a.status)
	}
}

func TestBody_CompressedIsUnsupported(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	a := p.do("POST", "/Users", "\x1f\x8b", "Content-Encoding", "gzip")
	if a.status != http.StatusUnsupportedMediaType || a.header.Get("Accept-Encoding") != "identity" {
		t.Errorf("answered %d, Accept-Encoding %q: %s", a.status, a.header.Get("Accept-Encoding"), a.raw)
	}
}

func TestBody_LargeResourceIsAnInvalidValue(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.wantRefused("POST", "/Users", `{"userName":"ada","displayName":"`+strings.Repeat("x", 200<<10)+`"}`, "invalidValue")
}

func TestOkta_UnknownMembersAreSkippedAndReported(t *testing.T) {
	const nobody = "00000000-0000-4000-8000-000000000000"
	for profile, skips := range map[tenant.Profile]bool{tenant.ProfileOkta: true, tenant.ProfileDefault: false, tenant.ProfileStrict: false} {
		t.Run(string(profile), func(t *testing.T) {
			p := newProvider(t, profile)
			ada := p.create("/Users", `{"userName":"ada"}`)
			team := p.create("/Groups", `{"displayName":"team"}`)
			members := fmt.Sprintf(`[{"value":"%s"},{"value":"%s"},{"value":"nobody"}]`, ada, nobody)
			patch := patchBody(`{"op":"add","path":"members","value":` + members + `}`)
			if !skips {
				p.wantRefused("PATCH", "/Groups/"+team, patch, "invalidValue")
				p.wantRefused("POST", "/Groups", `{"displayName":"other","members":`+members+`}`, "invalidValue")
				return
			}
			want := `{"members":[{"value":"` + ada + `"}]}`
			p.wantJSON(p.wantOK("PATCH", "/Groups/"+team, patch).body, want)
			p.wantJSON(p.wantOK("POST", "/Groups", `{"displayName":"other","members":`+members+`}`).body, want)
			p.wantOK("PATCH", "/Groups/"+team, patch) // changes nothing but is still audited
			p.wantJSON(p.wantOK("PUT", "/Groups/"+team, `{"displayName":"team","members":`+members+`}`).body, want)
			p.wantJSON(p.wantOK("PATCH", "/Groups/"+team, patchBody(`{"op":"replace","path":"members","value":`+members+`}`)).body, want)
			var rows int
			if err := p.row(`select count(*) from changes where ignored @> array['members: ' || $1, 'members: nobody']`, nobody).Scan(&rows); err != nil || rows != 5 {
				t.Errorf("the audit trail has %d requests with skipped members, want 5 (%v)", rows, err)
			}
		})
	}
}
