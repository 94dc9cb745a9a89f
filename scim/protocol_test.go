package scim_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim/schema"
)

func names(a answer) []string {
	var names []string
	list, _ := a.body["Resources"].([]any)
	for _, r := range list {
		for _, name := range []string{"userName", "displayName", "agentUserName"} {
			if text, ok := r.(map[string]any)[name].(string); ok {
				names = append(names, text)
				break
			}
		}
	}
	return names
}

func TestList_SortsByAttribute(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.declare("User", claimsSchema)
	for _, body := range []string{
		`{"userName":"b","name":{"familyName":"Zuse"},"emails":[{"value":"z@x"},{"value":"a@x","primary":true}],"` + claims + `":{"level":10}}`,
		`{"userName":"A","name":{"familyName":"abel"},"emails":[{"value":"m@x"}],"` + claims + `":{"level":9}}`,
		`{"userName":"c","active":true}`,
	} {
		p.create("/Users", body)
	}
	for query, want := range map[string]string{
		"sortBy=userName": "A b c", "sortBy=userName&sortOrder=descending": "c b A", "sortBy=name.familyName": "A b c", "sortBy=name.familyName&sortOrder=descending": "c b A",
		"sortBy=emails.value": "b A c", "sortBy=emails": "b A c", "sortBy=" + claims + ":level": "A b c", "sortBy=level&sortOrder=descending": "c b A",
		"sortBy=meta.created": "b A c", "sortBy=active": "c b A", "sortBy=id": "b A c", "sortBy=USERNAME&startIndex=2&count=1": "b",
	} {
		if a := p.do("GET", "/Users?"+query, ""); strings.Join(names(a), " ") != want {
			t.Errorf("%s: %v, want %s (%d)", query, names(a), want, a.status)
		}
	}
	for _, query := range []string{"sortBy=shoeSize", "sortBy=name", "sortBy=password", "sortBy=userName&sortOrder=sideways", "sortBy=userName%20eq%20%22x%22%20and%20id"} {
		if a := p.do("GET", "/Users?"+query, ""); a.status != http.StatusBadRequest {
			t.Errorf("%s answered %d, want 400", query, a.status)
		}
	}
}

// TestCursor_ReturnsUnchangedResourcesOnce reads all pages in several sort orders while other
// resources are created and deleted.
func TestCursor_ReturnsUnchangedResourcesOnce(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	const n = 40
	unchanged := map[string]int{}
	var doomed []string
	for i := range n {
		name := fmt.Sprintf("stays-%02d", i)
		p.create("/Users", fmt.Sprintf(`{"userName":%q,"title":"t%d"}`, name, i%3))
		unchanged[name] = 0
		doomed = append(doomed, p.create("/Users", fmt.Sprintf(`{"userName":"goes-%02d","title":"t1"}`, i)))
	}
	for _, order := range []string{"", "&sortBy=userName", "&sortBy=userName&sortOrder=descending", "&sortBy=title", "&sortBy=displayName", "&sortBy=meta.lastModified&sortOrder=descending"} {
		met := map[string]int{}
		cursor, pages := "", 0
		for {
			a := p.do("GET", "/Users?count=7"+order+"&cursor="+url.QueryEscape(cursor), "")
			if a.status != http.StatusOK || a.body["startIndex"] != nil {
				t.Fatalf("%s answered %d: %s", order, a.status, a.raw)
			}
			for _, name := range names(a) {
				met[name]++
			}
			pages++
			if len(doomed) > 0 {
				p.do("DELETE", "/Users/"+doomed[0], "")
				doomed = doomed[1:]
				p.create("/Users", fmt.Sprintf(`{"userName":"new-%d-%d"}`, len(order), pages))
			}
			if cursor, _ = a.body["nextCursor"].(string); cursor == "" {
				break
			}
		}
		for name := range unchanged {
			if met[name] != 1 {
				t.Errorf("order %q: %s was returned %d times in %d pages", order, name, met[name], pages)
			}
		}
	}
	if a := p.do("GET", "/Users?count=0", ""); len(names(a)) != 0 || a.body["totalResults"].(float64) < n {
		t.Errorf("count=0 answered %s", a.raw)
	}
}

func TestCursor_IsBoundToQueryAndTenant(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	for i := range 3 {
		p.create("/Users", fmt.Sprintf(`{"userName":"u%d"}`, i))
	}
	cursor := url.QueryEscape(p.do("GET", "/Users?count=1&cursor", "").body["nextCursor"].(string))
	if a := p.do("GET", "/Users?count=2&cursor="+cursor, ""); cmp.Diff([]string{"u1", "u2"}, names(a)) != "" || a.body["nextCursor"] != nil {
		t.Errorf("the next page with another count: %v", names(a))
	}
	_, other := p.newTenant("umbrella", tenant.ProfileDefault)
	for what, a := range map[string]answer{
		"invalidCursor another order":    p.do("GET", "/Users?sortBy=userName&cursor="+cursor, ""),
		"invalidCursor another filter":   p.do("GET", "/Users?filter=userName+pr&cursor="+cursor, ""),
		"invalidCursor another endpoint": p.do("GET", "/Groups?cursor="+cursor, ""),
		"invalidCursor another tenant":   p.do("GET", "/Users?cursor="+cursor, "", "Authorization", "Bearer "+other),
		"invalidCursor a modified one":   p.do("GET", "/Users?cursor=x"+cursor, ""),
		"invalidCursor with an index":    p.do("GET", "/Users?startIndex=1&cursor="+cursor, ""),
		"invalidCount not a number":      p.do("GET", "/Users?count=x&cursor="+cursor, ""),
	} {
		want, _, _ := strings.Cut(what, " ")
		if a.status != http.StatusBadRequest || a.body["scimType"] != want {
			t.Errorf("%s: %d %s", what, a.status, a.raw)
		}
	}
}

func TestProjection_SelectsAttributes(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.declare("User", claimsSchema)
	id := p.create("/Users", `{"userName":"ada","displayName":"Ada","name":{"givenName":"Ada","familyName":"L"},"emails":[{"type":"work","value":"a@b"}],
		"`+enterprise+`":{"department":"Math","costCenter":"1"},"`+claims+`":{"hint":"h","pin":"1234","level":1}}`)
	all := `"schemas":["` + schema.UserURN + `","` + enterprise + `","` + claims + `"],"id":"` + id + `"`
	for query, want := range map[string]string{
		"attributes=userName":                                       `{` + all + `,"userName":"ada"}`,
		"attributes=NAME.givenname":                                 `{` + all + `,"name":{"givenName":"Ada"}}`,
		"attributes=emails.value,meta.resourceType":                 `{` + all + `,"emails":[{"value":"a@b"}],"meta":{"resourceType":"User"}}`,
		"attributes=" + enterprise + ":department":                  `{` + all + `,"` + enterprise + `":{"department":"Math"}}`,
		"attributes=" + enterprise:                                  `{` + all + `,"` + enterprise + `":{"department":"Math","costCenter":"1"}}`,
		"attributes=department":                                     `{` + all + `,"` + enterprise + `":{"department":"Math"}}`,
		"attributes=" + schema.UserURN + ":displayName":             `{` + all + `,"displayName":"Ada"}`,
		"attributes=" + claims + ":hint," + claims + ":pin":         `{` + all + `,"` + claims + `":{"hint":"h"}}`,
		"excludedAttributes=meta,name,emails," + enterprise + ",id": `{` + all + `,"userName":"ada","displayName":"Ada","` + claims + `":{"level":1}}`,
		"excludedAttributes=meta,name.familyName,emails.value," + enterprise + ":costCenter,displayName": `{` + all +
			`,"userName":"ada","name":{"givenName":"Ada"},"emails":[{"type":"work"}],"` + enterprise + `":{"department":"Math"},"` + claims + `":{"level":1}}`,
		"attributes=nothing": `{` + all + `}`,
	} {
		var wanted map[string]any
		if err := json.Unmarshal([]byte(want), &wanted); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wanted, p.do("GET", "/Users/"+id+"?"+query, "").body); diff != "" {
			t.Errorf("%s: want -, got +:\n%s", query, diff)
		}
		listed := p.do("GET", "/Users?"+query, "").body["Resources"].([]any)[0]
		if diff := cmp.Diff(any(wanted), listed); diff != "" {
			t.Errorf("listed with %s: want -, got +:\n%s", query, diff)
		}
	}
	if a := p.do("GET", "/Users/"+id+"?attributes=id&excludedAttributes=name", ""); a.status != http.StatusBadRequest {
		t.Errorf("attributes with excludedAttributes answered %d", a.status)
	}
	if a := p.do("PATCH", "/Users/"+id+"?attributes=title", patchBody(`{"op":"add","path":"title","value":"x"}`)); a.body["userName"] != nil || a.body["title"] != "x" {
		t.Errorf("a PATCH with attributes: %s", a.raw)
	}
}

func TestSearch_RunsPostedQuery(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada","displayName":"Same"}`)
	p.create("/Groups", `{"displayName":"Same","members":["`+ada+`"]}`)
	p.create("/Agents", `{"agentUserName":"writer","displayName":"Same","owners":["`+ada+`"]}`)
	const message = `"schemas":["urn:ietf:params:scim:api:messages:2.0:SearchRequest"]`
	for name, c := range map[string]struct {
		method, path, body string
		want               string
	}{
		"one type":                     {"POST", "/Users/.search", `{` + message + `,"filter":"userName eq \"ADA\"","attributes":["userName"]}`, `{"totalResults":1,"Resources":[{"userName":"ada","displayName":"<absent>"}]}`},
		"all types":                    {"POST", "/.search", `{` + message + `,"filter":"displayName eq \"same\"","sortBy":"meta.created"}`, `{"totalResults":3,"Resources":[{"meta":{"resourceType":"User"}},{"meta":{"resourceType":"Group"},"members":[{"value":"` + ada + `"}]},{"meta":{"resourceType":"Agent"}}]}`},
		"an attribute of one type":     {"POST", "/.search", `{` + message + `,"filter":"userName eq \"ada\"","count":10}`, `{"totalResults":1,"itemsPerPage":1}`},
		"GET at the root":              {"GET", "/?filter=meta.resourceType+eq+%22Group%22", "", `{"totalResults":1}`},
		"index pages":                  {"POST", "/.search", `{` + message + `,"startIndex":2,"count":1}`, `{"totalResults":3,"startIndex":2,"itemsPerPage":1}`},
		"a cursor":                     {"POST", "/Users/.search", `{` + message + `,"cursor":"","count":1}`, `{"itemsPerPage":1,"startIndex":"<absent>"}`},
		"a sort attribute of one type": {"POST", "/.search", `{` + message + `,"sortBy":"userName"}`, `{"totalResults":3}`},
		"excluded members":             {"POST", "/Groups/.search", `{` + message + `,"excludedAttributes":["members"]}`, `{"Resources":[{"members":"<absent>"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			a := p.do(c.method, c.path, c.body)
			if a.status != http.StatusOK {
				t.Fatalf("answered %d: %s", a.status, a.raw)
			}
			p.wantJSON(a.body, c.want)
		})
	}
	for name, body := range map[string]string{
		"another message": `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"]}`, "a filter on an unknown attribute": `{` + message + `,"filter":"shoeSize eq 1"}`,
		"200 KB of parentheses": `{` + message + `,"filter":"` + strings.Repeat("(", 200_000) + `"}`, "a filter that is not a string": `{` + message + `,"filter":1}`,
		"a count that is not a number": `{` + message + `,"count":"many"}`, "an unknown sortBy": `{` + message + `,"sortBy":"shoeSize"}`,
	} {
		if a := p.do("POST", "/.search", body); a.status != http.StatusBadRequest {
			t.Errorf("%s answered %d: %s", name, a.status, a.raw)
		}
	}
}

func TestETag_GuardsReadsAndWrites(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"ada"}`)
	path := "/Users/" + id
	if a := p.do("GET", path, ""); a.header.Get("ETag") != `W/"1"` || a.header.Get("Content-Type") != "application/scim+json" {
		t.Errorf("headers %v", a.header)
	}
	title := patchBody(`{"op":"replace","path":"title","value":"x"}`)
	for name, c := range map[string]struct {
		method, body, header, value string
		status                      int
	}{
		"If-None-Match, same version":   {"GET", "", "If-None-Match", `W/"1"`, 304},
		"If-None-Match, any version":    {"GET", "", "If-None-Match", `*`, 304},
		"If-None-Match, other versions": {"GET", "", "If-None-Match", `"7", "8"`, 200},
		"PATCH, other version":          {"PATCH", title, "If-Match", `W/"7"`, 412},
		"PUT, other version":            {"PUT", `{"userName":"ada"}`, "If-Match", `W/"7"`, 412},
		"DELETE, other version":         {"DELETE", "", "If-Match", `W/"7"`, 412},
		"PATCH, one of two versions":    {"PATCH", patchBody(`{"op":"remove","path":"title"}`), "If-Match", `W/"7", W/"1"`, 200},
	} {
		if a := p.do(c.method, path, c.body, c.header, c.value); a.status != c.status {
			t.Errorf("%s answered %d, want %d", name, a.status, c.status)
		}
	}
	team := p.create("/Groups", `{"displayName":"team"}`)
	add := patchBody(`{"op":"add","path":"members","value":["` + id + `"]}`)
	if a := p.do("PATCH", "/Groups/"+team, add, "If-Match", `W/"2"`); a.status != http.StatusPreconditionFailed {
		t.Errorf("adding a member with another version answered %d", a.status)
	}
	if a := p.do("PATCH", "/Groups/"+team, add, "If-Match", `W/"1"`); a.status != http.StatusOK || a.header.Get("ETag") != `W/"2"` {
		t.Errorf("adding a member with the current version answered %d %v", a.status, a.header)
	}
	if a := p.do("PATCH", "/Groups/"+team, add); a.header.Get("ETag") != `W/"2"` {
		t.Errorf("adding a member again changed the version to %s", a.header.Get("ETag"))
	}
}

func TestNegotiation_RejectsUnsupportedRequests(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	for accept, want := range map[string]int{
		"application/scim+json": 200, "application/json": 200, "*/*": 200, "application/*;q=0.5": 200, "text/html, */*;q=0.1": 200, "": 200,
		"text/html": 406, "application/xml, image/png": 406, "application/scim+json;q=0": 406,
	} {
		if a := p.do("GET", "/Users", "", "Accept", accept); a.status != want || a.header.Get("Content-Type") != "application/scim+json" {
			t.Errorf("Accept %q answered %d %s, want %d", accept, a.status, a.header.Get("Content-Type"), want)
		}
	}
	if a := p.do("PUT", "/Users", `{`); a.status != http.StatusMethodNotAllowed || strings.Join(a.header.Values("Allow"), " ") != "GET POST" {
		t.Errorf("PUT /Users answered %d, allows %v", a.status, a.header.Values("Allow"))
	}
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		if a := p.do(method, "/Me", ""); a.status != http.StatusNotImplemented {
			t.Errorf("%s /Me answered %d, want 501", method, a.status)
		}
	}
}

func TestAsync_WriteReturnsTransaction(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"ada","active":true}`)
	off := patchBody(`{"op":"replace","path":"active","value":false}`)
	a := p.do("PATCH", "/Users/"+id, off, "Prefer", "wait=5, respond-async")
	if a.status != http.StatusAccepted || len(a.raw) != 0 || a.header.Get("Preference-Applied") != "respond-async" {
		t.Fatalf("answered %d %v %q", a.status, a.header, a.raw)
	}
	if !p.restricted(id) {
		t.Error("the user is not restricted after the 202")
	}
	txn := a.header.Get("Set-Txn")
	if !strings.HasPrefix(txn, "leaver/"+p.tenant.ID.String()+"/"+id) || a.header.Get("Location") != p.url+"/Transactions/"+txn {
		t.Errorf("Set-Txn %q, Location %q", txn, a.header.Get("Location"))
	}
	// Another process can read the transaction, too.
	status := newProviderOn(t, p).do("GET", "/Transactions/"+txn, "")
	p.wantJSON(status.body, `{"schemas":["urn:leaver:params:scim:api:messages:1.0:Transaction"],"txn":"`+txn+`","operation":{"method":"PATCH","status":"200"}}`)
	_, other := p.newTenant("umbrella", tenant.ProfileDefault)
	if a := p.do("GET", "/Transactions/"+txn, "", "Authorization", "Bearer "+other); a.status != http.StatusNotFound {
		t.Errorf("a GET by another tenant answered %d", a.status)
	}
	if a := p.do("PATCH", "/Users/"+id, off, "Prefer", "respond-async"); a.status != http.StatusOK {
		t.Errorf("a write that changes nothing answered %d, want 200", a.status)
	}
	if a := p.do("DELETE", "/Users/"+id, "", "Prefer", "respond-async"); a.status != http.StatusAccepted || a.header.Get("Set-Txn") == txn {
		t.Errorf("the DELETE answered %d %v", a.status, a.header)
	}
}

func TestPatch_ReturnsSameAgentAsGet(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada"}`)
	agent := p.create("/Agents", `{"agentUserName":"bot","owners":[{"value":"`+ada+`"}]}`)
	patched := p.do("PATCH", "/Agents/"+agent, patchBody(`{"op":"replace","path":"externalId","value":"x"}`))
	if diff := cmp.Diff(p.do("GET", "/Agents/"+agent, "").body, patched.body); diff != "" {
		t.Errorf("PATCH differs from GET (-GET +PATCH):\n%s", diff)
	}
}
