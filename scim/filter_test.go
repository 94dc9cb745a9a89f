package scim_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim"
	"github.com/leaverhq/leaver/scim/schema"
)

// people are the users that filters are tested on. Each has attributes that others lack.
var people = []string{
	`{"userName":"ada@example.com","displayName":"Ada","active":true,"title":"Countess","externalId":"A1","name":{"familyName":"Lovelace","givenName":"Ada"},
	  "emails":[{"type":"work","value":"ada@work.example","primary":true},{"type":"home","value":"Ada@home.example"}],"` + enterprise + `":{"department":"Math","manager":{"value":"1"}},
	  "` + claims + `":{"clearedForProdData":true,"level":3,"since":"2024-03-01T00:00:00Z","badge":"B-1","scopes":["read","write"]}}`,
	`{"userName":"Bob@example.com","displayName":"Bób","active":false,"externalId":"a1","name":{"familyName":"babbage"},
	  "emails":[{"type":"WORK","value":"bob@work.example"}],"` + claims + `":{"clearedForProdData":false,"level":10,"since":"2025-03-01T02:00:00+02:00","scopes":["read"]}}`,
	`{"userName":"cyd@example.com","title":"","emails":[{"type":"home","value":"cyd@home.example","primary":true}],"` + enterprise + `":{"department":"math"}}`,
	`{"userName":"dee@example.com","displayName":"with \"quotes\" and \\ back","active":true,"name":{"givenName":"Dee"},"` + claims + `":{"level":-2.5}}`,
}

const claims = "urn:example:acme:scim:2.0:Claims"

// claimsSchema is a custom extension of a tenant.
const claimsSchema = `{"id":"` + claims + `","name":"Claims","description":"What policy asks for.","attributes":[
	{"name":"clearedForProdData","type":"boolean"},{"name":"level","type":"decimal"},{"name":"since","type":"dateTime"},
	{"name":"badge","type":"string","caseExact":true,"uniqueness":"server"},{"name":"scopes","type":"string","multiValued":true,"canonicalValues":["read","write","admin"]},
	{"name":"serial","type":"string","mutability":"immutable"},{"name":"hint","type":"string","returned":"request"},
	{"name":"pin","type":"string","mutability":"writeOnly","returned":"never"},
	{"name":"desk","type":"complex","subAttributes":[{"name":"floor","type":"integer","required":true},{"name":"room","type":"string","mutability":"immutable"}]}]}`

// declare adds an extension schema to the tenant, as an operator does.
func (p *provider) declare(resourceType, definition string) {
	p.t.Helper()
	_, err := p.tenants.PutSchema(p.t.Context(), p.tenant.ID, tenant.Schema{ResourceType: resourceType, Definition: json.RawMessage(definition)}, scim.CheckDeclared)
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *provider) find(filter string) ([]string, answer) {
	p.t.Helper()
	a := p.do("GET", "/Users?count=100&filter="+url.QueryEscape(filter), "")
	var names []string
	list, _ := a.body["Resources"].([]any)
	for _, r := range list {
		names = append(names, strings.ToLower(r.(map[string]any)["userName"].(string)[:3]))
	}
	slices.Sort(names)
	return names, a
}

func TestFilter_SelectsMatchingResources(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.declare("User", claimsSchema)
	var ids []string
	for _, body := range people {
		ids = append(ids, p.create("/Users", body))
	}
	inner := p.create("/Groups", `{"displayName":"inner","members":["`+ids[0]+`"]}`)
	outer := p.create("/Groups", `{"displayName":"Outer","members":["`+inner+`","`+ids[1]+`"]}`)
	p.do("PATCH", "/Users/"+ids[2], patchBody(`{"op":"replace","path":"active","value":false}`))
	for filter, want := range map[string]string{
		`userName eq "ADA@example.com"`: "ada", `userName ne "ada@example.com"`: "bob cyd dee",
		`userName co "B@EX"`: "bob", `userName sw "a"`: "ada", `userName ew ".COM"`: "ada bob cyd dee",
		`userName gt "b"`: "bob cyd dee", `userName ge "cyd@example.com"`: "cyd dee", `userName lt "b"`: "ada", `userName le "ada@example.com"`: "ada",
		`externalId eq "A1"`: "ada", `externalId eq "a1"`: "bob", `externalId sw "A"`: "ada",
		`title pr`: "ada", `not (title pr)`: "bob cyd dee", `active eq true`: "ada dee", `active eq "False"`: "bob cyd", `active ne true`: "bob cyd",
		`displayName eq "bób"`: "bob", `displayName eq "with \"quotes\" and \\ back"`: "dee",
		`name.familyName eq "LOVELACE"`: "ada", `name.familyName pr and not (name.givenName pr)`: "bob",
		`emails eq "ada@HOME.example"`: "ada", `emails.value ew "home.example"`: "ada cyd", `emails.type eq "work"`: "ada bob",
		`emails[type eq "work"]`: "ada bob", `emails[type eq "home" and primary eq true]`: "cyd", `emails[not (type eq "home")]`: "ada bob",
		`emails[type eq "work"].value co "bob"`: "bob", `emails pr`: "ada bob cyd", `emails[primary eq "True"].value pr`: "ada cyd",
		enterprise + `:department eq "MATH"`: "ada cyd", `department eq "math"`: "ada cyd", enterprise + `:manager eq "1"`: "ada", `manager.value eq "1"`: "ada",
		claims + `:clearedForProdData eq true`: "ada", claims + `:level gt 3`: "bob", claims + `:level ge 3`: "ada bob", claims + `:level lt 0`: "dee", `level eq 3.0`: "ada",
		claims + `:since gt "2025-01-01T00:00:00Z"`: "bob", `since eq "2025-03-01T00:00:00Z"`: "bob", `since le "2024-03-01T00:00:00Z"`: "ada",
		claims + `:scopes eq "WRITE"`: "ada", claims + `:badge eq "b-1"`: "", claims + `:badge eq "B-1"`: "ada",
		`(userName sw "a" or userName sw "b") and active eq true`: "ada", `userName sw "a" or userName sw "b" and active eq true`: "ada",
		`not (userName sw "a" or active eq false)`: "dee", `id eq "` + ids[3] + `"`: "dee", `id eq "nobody"`: "", `id pr`: "ada bob cyd dee",
		`groups eq "` + inner + `"`: "ada", `groups.value eq "` + outer + `"`: "ada bob", `groups[type eq "indirect"]`: "ada", `groups.display eq "outer"`: "ada bob", `groups pr`: "ada bob",
		`meta.resourceType eq "User"`: "ada bob cyd dee", `meta.lastModified gt "2020-01-01T00:00:00Z"`: "ada bob cyd dee", `meta.created lt "2020-01-01T00:00:00Z"`: "",
		`meta.version eq "W/\"2\""`: "cyd", `schemas eq "` + claims + `"`: "ada bob dee", `schemas eq "` + schema.LifecycleURN + `"`: "bob cyd",
		schema.LifecycleURN + `:restrictedSince pr`: "bob cyd", schema.LifecycleURN + `:workflowId sw "leaver/"`: "cyd", `survivors eq 0`: "bob cyd", `cause eq "deactivated"`: "bob cyd",
		`title eq null`: "bob cyd dee",
	} {
		t.Run(filter, func(t *testing.T) {
			got, a := p.find(filter)
			if strings.Join(got, " ") != want || a.status != 200 {
				t.Errorf("found %q, want %q (%d %s)", strings.Join(got, " "), want, a.status, a.raw[:min(len(a.raw), 200)])
			}
		})
	}
	for _, filter := range []string{
		`active gt true`, `shoeSize eq 4`, `password pr`, claims + `:pin pr`, `userName`, `name eq "x"`, `level eq "three"`, `since gt "yesterday"`,
		`emails[type eq "a"`, `(userName pr`, `userName eq`, `userName foo "x"`, `meta.location eq "x"`, `level eq 1e999`, `since gt "0000-01-01T00:00:00Z"`, `emails[type eq "x" and emails[type eq "y"]]`,
	} {
		if _, a := p.find(filter); a.status != 400 || a.body["scimType"] != "invalidFilter" {
			t.Errorf("%s answered %d %s, want 400 invalidFilter", filter, a.status, a.raw)
		}
	}
	groups := map[string]int{
		`members eq "` + ids[1] + `"`: 1, `members.value eq "` + inner + `"`: 1, `members[type eq "Group"]`: 1, `members[type eq "User" and value eq "` + ids[0] + `"]`: 1,
		`members.display co "ob"`: 0, `members.display eq "BÓB"`: 1, `members pr and displayName sw "o"`: 1, `members.value ne "` + ids[1] + `"`: 1,
	}
	for filter, want := range groups {
		if a := p.do("GET", "/Groups?filter="+url.QueryEscape(filter), ""); a.status != 200 || a.body["totalResults"] != float64(want) {
			t.Errorf("%s: %d %v, want %d", filter, a.status, a.body["totalResults"], want)
		}
	}
}

// TestFilter_SQLMatchesInMemory checks that PostgreSQL selects the same resources as the
// in-memory evaluation of the filter on the resources that clients read.
func TestFilter_SQLMatchesInMemory(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.declare("User", claimsSchema)
	for _, body := range people {
		p.create("/Users", body)
	}
	extension, err := schema.ParseExtension("User", []byte(claimsSchema))
	if err != nil {
		t.Fatal(err)
	}
	user := schema.ResourceTypes([]*schema.Extension{extension})[0]
	var resources []map[string]any
	for _, r := range p.do("GET", "/Users", "").body["Resources"].([]any) {
		resources = append(resources, r.(map[string]any))
	}
	rapid.Check(t, func(rt *rapid.T) {
		filter := drawFilter(rt, 3)
		got, a := p.find(filter)
		if a.status != 200 {
			rt.Fatalf("%s answered %d: %s", filter, a.status, a.raw)
		}
		var want []string
		for _, r := range resources {
			matches, err := scim.Match(user, filter, r)
			if err != nil {
				rt.Fatal(err)
			}
			if matches {
				want = append(want, strings.ToLower(r["userName"].(string)[:3]))
			}
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("%s: PostgreSQL differs from memory (-memory +PostgreSQL):\n%s", filter, diff)
		}
	})
}

func drawFilter(t *rapid.T, depth int) string {
	if depth > 0 {
		switch rapid.IntRange(0, 4).Draw(t, "shape") {
		case 0:
			return "(" + drawFilter(t, depth-1) + " and " + drawFilter(t, depth-1) + ")"
		case 1:
			return "(" + drawFilter(t, depth-1) + " or " + drawFilter(t, depth-1) + ")"
		case 2:
			return "not (" + drawFilter(t, depth-1) + ")"
		}
	}
	text := []string{"eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"}
	ordered := []string{"eq", "ne", "gt", "ge", "lt", "le"}
	value := rapid.SampledFrom([]string{"", "a", "Ada", "work", "home", "@", "example.com", "ada@example.com", "math", "A1", "quotes\\\"", "bób", "read", "B-1"})
	switch rapid.IntRange(0, 5).Draw(t, "attribute") {
	case 0:
		name := rapid.SampledFrom([]string{"level", claims + ":level"}).Draw(t, "name")
		return fmt.Sprintf(`%s %s %s`, name, rapid.SampledFrom(ordered).Draw(t, "op"), rapid.SampledFrom([]string{"3", "-2.5", "10", "0"}).Draw(t, "number"))
	case 1:
		name := rapid.SampledFrom([]string{"active", "clearedForProdData"}).Draw(t, "name")
		return fmt.Sprintf(`%s %s %t`, name, rapid.SampledFrom([]string{"eq", "ne"}).Draw(t, "op"), rapid.Bool().Draw(t, "bool"))
	case 2:
		return fmt.Sprintf(`since %s "%s"`, rapid.SampledFrom(ordered).Draw(t, "op"), rapid.SampledFrom([]string{"2025-03-01T00:00:00Z", "2024-03-01T00:00:00Z"}).Draw(t, "date"))
	case 3:
		return rapid.SampledFrom([]string{"title", "emails", "name.givenName", "displayName", claims + ":badge", "scopes", "emails.primary", "department", "id", "active"}).Draw(t, "name") + " pr"
	case 4:
		return fmt.Sprintf(`emails[type %s "%s" and %s]`, rapid.SampledFrom(text).Draw(t, "op"), value.Draw(t, "type"),
			rapid.SampledFrom([]string{`value co "home"`, "primary eq true", "not (primary eq true)", "value pr"}).Draw(t, "also"))
	}
	name := rapid.SampledFrom([]string{"userName", "displayName", "externalId", "title", "name.familyName", "emails", "emails.value", "emails.type", "department", "scopes", "badge"}).Draw(t, "name")
	return fmt.Sprintf(`%s %s "%s"`, name, rapid.SampledFrom(text).Draw(t, "op"), value.Draw(t, "value"))
}
