package scim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/tenant"
)

func bulkBody(operations string) string {
	return `{"schemas":["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],"Operations":[` + operations + `]}`
}

func TestBulk_ResolvesReferencesInAnyOrder(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	a := p.do("POST", "/Bulk", bulkBody(`
		{"method":"PATCH","path":"/Groups/bulkId:team","data":{"Operations":[{"op":"replace","path":"displayName","value":"Renamed"}]}},
		{"method":"POST","path":"/Groups","bulkId":"team","data":{"displayName":"Team","members":[{"value":"bulkId:ada"},{"value":"bulkId:inner"}]}},
		{"method":"POST","path":"/Agents","bulkId":"writer","data":{"agentUserName":"writer","owners":["bulkId:ada"]}},
		{"method":"POST","path":"/Groups","bulkId":"inner","data":{"displayName":"Inner"}},
		{"method":"POST","path":"/Users","bulkId":"ada","data":{"userName":"ada"}}`))
	if a.status != http.StatusOK {
		t.Fatalf("answered %d: %s", a.status, a.raw)
	}
	p.wantJSON(a.body, `{"schemas":["urn:ietf:params:scim:api:messages:2.0:BulkResponse"],"Operations":[
		{"method":"PATCH","status":"200","version":"W/\"2\"","response":"<absent>"},{"method":"POST","bulkId":"team","status":"201"},
		{"bulkId":"writer","status":"201"},{"bulkId":"inner","status":"201","version":"W/\"1\""},{"bulkId":"ada","status":"201"}]}`)
	p.wantJSON(p.do("GET", "/Groups?filter=displayName+eq+%22renamed%22", "").body, `{"totalResults":1,"Resources":[{"members":[{"display":"ada"},{"display":"Inner"}]}]}`)
	location := a.body["Operations"].([]any)[4].(map[string]any)["location"].(string)
	if !strings.HasPrefix(location, p.url+"/Users/") {
		t.Errorf("location %s", location)
	}
}

func TestBulk_ReportsFailures(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada"}`)
	for name, c := range map[string]struct {
		body   string
		status int
		want   string
	}{
		"a circular reference": {
			bulkBody(`{"method":"POST","path":"/Groups","bulkId":"a","data":{"displayName":"A","members":["bulkId:b"]}},
				{"method":"POST","path":"/Groups","bulkId":"b","data":{"displayName":"B","members":["bulkId:a"]}},{"method":"POST","path":"/Users","bulkId":"c","data":{"userName":"fine"}}`),
			200, `{"Operations":[{"status":"409","response":{"status":"409"}},{"status":"409"},{"status":"201"}]}`,
		},
		"a reference to a failed one": {
			bulkBody(`{"method":"POST","path":"/Users","bulkId":"a","data":{"userName":"ADA"}},{"method":"POST","path":"/Groups","bulkId":"b","data":{"displayName":"B","members":["bulkId:a"]}}`),
			200, `{"Operations":[{"status":"409","response":{"scimType":"uniqueness"}},{"status":"409"}]}`,
		},
		"an unknown reference":  {bulkBody(`{"method":"PATCH","path":"/Users/bulkId:x","data":{}}`), 200, `{"Operations":[{"status":"400","response":{"scimType":"invalidValue"}}]}`},
		"an unsupported path":   {bulkBody(`{"method":"POST","path":"/Bulk","bulkId":"a","data":{}},{"method":"DELETE","path":"/Users/../Groups"},{"method":"GET","path":"/Users"}`), 200, `{"Operations":[{"status":"400"},{"status":"400"},{"status":"400"}]}`},
		"a stale version":       {bulkBody(`{"method":"DELETE","path":"/Users/` + ada + `","version":"W/\"9\""}`), 200, `{"Operations":[{"status":"412"}]}`},
		"a POST without bulkId": {bulkBody(`{"method":"POST","path":"/Users","data":{"userName":"x"}}`), 200, `{"Operations":[{"status":"400","response":{"scimType":"invalidSyntax"}}]}`},
		"failOnErrors": {
			strings.Replace(bulkBody(strings.Repeat(`{"method":"DELETE","path":"/Users/nobody"},`, 3)+`{"method":"POST","path":"/Users","bulkId":"z","data":{"userName":"late"}}`), `"Operations"`, `"failOnErrors":2,"Operations"`, 1),
			200, `{"Operations":[{"status":"404"},{"status":"404"}]}`,
		},
		"a duplicate bulkId": {bulkBody(`{"method":"POST","path":"/Users","bulkId":"a","data":{"userName":"x"}},{"method":"POST","path":"/Users","bulkId":"a","data":{"userName":"y"}}`), 400, `{"scimType":"invalidSyntax"}`},
		"no operations":      {bulkBody(``), 400, `{"scimType":"invalidSyntax"}`},
		"1,001 operations":   {bulkBody(strings.TrimSuffix(strings.Repeat(`{"method":"DELETE","path":"/Users/x"},`, 1001), ",")), 413, `{"status":"413"}`},
		"2 MB":               {bulkBody(`{"method":"POST","path":"/Users","bulkId":"a","data":{"userName":"` + strings.Repeat("x", 2<<20) + `"}}`), 413, `{"status":"413"}`},
	} {
		t.Run(name, func(t *testing.T) {
			a := p.do("POST", "/Bulk", c.body)
			if a.status != c.status {
				t.Fatalf("answered %d, want %d: %s", a.status, c.status, a.raw)
			}
			p.wantJSON(a.body, c.want)
		})
	}
	if a := p.do("GET", "/Users?filter=userName+eq+%22late%22", ""); a.body["totalResults"] != 0.0 {
		t.Error("an operation ran after failOnErrors was reached")
	}
}

// TestBulk_AppliesGuardsAndRestrictions checks that operations have the same restrictions and
// guards as separate requests.
func TestBulk_AppliesGuardsAndRestrictions(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada","active":true}`)
	agent := p.create("/Agents", `{"agentUserName":"writer","owners":["`+ada+`"],"active":true}`)
	set := func(path string, active bool) string {
		return fmt.Sprintf(`{"method":"PATCH","path":%q,"data":{"Operations":[{"op":"replace","path":"active","value":%t}]}}`, path, active)
	}
	a := p.do("POST", "/Bulk", bulkBody(set("/Users/"+ada, false)+","+set("/Agents/"+agent, false)+","+set("/Agents/"+agent, true)))
	p.wantJSON(a.body, `{"Operations":[{"status":"200"},{"status":"200"},{"status":"409"}]}`)
	if !p.restricted(ada) || !p.restricted(agent) {
		t.Error("a restriction is missing")
	}
}
