package scim_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/tenant"
)

// secretive is a schema with sub-attributes that are returned less often than their attribute.
const secretive = `{"id":"urn:example:secretive","attributes":[{"name":"creds","type":"complex","returned":"always","subAttributes":[
	{"name":"id"},{"name":"hint","returned":"request"},{"name":"secret","mutability":"writeOnly","returned":"never"}]}]}`

func TestProjection_HidesConcealedSubAttributes(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.declare("User", secretive)
	id := p.create("/Users", `{"userName":"ada","urn:example:secretive":{"creds":{"id":"1","hint":"h","secret":"s3cret"}}}`)
	for _, query := range []string{"", "?attributes=userName", "?attributes=urn:example:secretive:creds", "?attributes=urn:example:secretive:creds.secret", "?excludedAttributes=urn:example:secretive:creds"} {
		for _, path := range []string{"/Users/" + id, "/Users"} {
			if a := p.do("GET", path+query, ""); strings.Contains(string(a.raw), "s3cret") || !strings.Contains(string(a.raw), `"creds"`) {
				t.Errorf("GET %s%s returned %s", path, query, a.raw)
			}
		}
	}
	for _, query := range []string{`filter=creds.secret sw "s"`, `filter=creds.secret pr`, `sortBy=creds.secret`, `filter=urn:example:secretive:creds.secret eq "s3cret"`} {
		name, value, _ := strings.Cut(query, "=")
		if a := p.do("GET", "/Users?"+name+"="+url.QueryEscape(value), ""); a.status != http.StatusBadRequest {
			t.Errorf("%s answered %d: %s", query, a.status, a.raw)
		}
	}
}

func TestAgents_ReactivationRequiresActiveOwner(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada","active":true}`)
	agent := p.create("/Agents", `{"agentUserName":"writer","owners":["`+ada+`"],"active":true}`)
	p.do("PATCH", "/Users/"+ada, patchBody(`{"op":"replace","path":"active","value":false}`))
	p.do("PATCH", "/Agents/"+agent, patchBody(`{"op":"replace","path":"active","value":false}`))
	a := p.do("PATCH", "/Agents/"+agent, patchBody(`{"op":"replace","path":"active","value":true}`), "If-Match", `W/"2"`)
	p.wantJSON(a.body, `{"active":false}`)
	if !p.restricted(agent) {
		t.Errorf("an agent without an active owner was reactivated: %d %s", a.status, a.raw)
	}
}

func TestAgents_PutDeactivatesDespiteDeletedOwners(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada, bob := p.create("/Users", `{"userName":"ada"}`), p.create("/Users", `{"userName":"bob"}`)
	for name, owners := range map[string]string{"one of two": `["` + ada + `","` + bob + `"]`, "all": `["` + ada + `"]`} {
		agent := p.create("/Agents", `{"agentUserName":"`+name+`","owners":`+owners+`,"active":true}`)
		defer func() {
			if a := p.do("PUT", "/Agents/"+agent, `{"agentUserName":"`+name+`","owners":`+owners+`,"active":false}`); a.status != http.StatusOK || !p.restricted(agent) {
				t.Errorf("%s: %d, restricted %t: %s", name, a.status, p.restricted(agent), a.raw)
			}
			if a := p.do("PUT", "/Agents/"+agent, `{"agentUserName":"`+name+`","active":false}`); name == "all" && a.status != http.StatusOK {
				t.Errorf("%s, without owners: %d %s", name, a.status, a.raw)
			}
		}()
	}
	p.do("DELETE", "/Users/"+ada, "")
}

func TestPatch_AddingExistingValueChangesNothing(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"ada","emails":[{"type":"work","value":"a@x","primary":true},{"type":"home","value":"h@x"}]}`)
	a := p.do("PATCH", "/Users/"+id, patchBody(`{"op":"add","path":"emails","value":[{"type":"work","value":"a@x","primary":true}]}`))
	p.wantJSON(a.body, `{"emails":[{"type":"work","primary":true},{"type":"home"}],"meta":{"version":"W/\"1\""}}`)
}

func TestProjection_InvalidFailsBeforeWrite(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	if a := p.do("POST", "/Groups?attributes=id&excludedAttributes=members", `{"displayName":"team"}`); a.status != http.StatusBadRequest {
		t.Errorf("answered %d", a.status)
	}
	p.wantJSON(p.do("GET", "/Groups", "").body, `{"totalResults":0}`)
}

// TestErrors_ValueRejectedByPostgreSQLIsClientError checks that such values are never a 500.
func TestErrors_ValueRejectedByPostgreSQLIsClientError(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.declare("User", claimsSchema)
	id := p.create("/Users", `{"userName":"ada","`+claims+`":{"level":12345678901234567}}`)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
	}{
		"a number that underflows": {"PATCH", "/Users/" + id, patchBody(`{"op":"add","path":"` + claims + `:level","value":1e-20000}`), 400},
		"a number that overflows":  {"PATCH", "/Users/" + id, patchBody(`{"op":"add","path":"` + claims + `:level","value":1e20000}`), 400},
		"a date of 200 digits":     {"PATCH", "/Users/" + id, patchBody(`{"op":"add","path":"` + claims + `:since","value":"2024-01-01T00:00:00.` + strings.Repeat("1", 200) + `Z"}`), 400},
		"U+0000 in a name":         {"GET", "/Users?filter=" + url.QueryEscape(`userName eq "\u0000"`), "", 400},
		"U+0000 in a transaction":  {"GET", "/Transactions/%00", "", 404},
		"non-UTF-8 transaction":    {"GET", "/Transactions/%ff", "", 404},
		"non-UTF-8 filter":         {"GET", "/Users?filter=userName%20eq%20%22%ff%22", "", 200},
		"non-UTF-8 body":           {"POST", "/Users", "{\"userName\":\"x\xff\"}", 201},
		"a document of 200 KiB":    {"PATCH", "/Users/" + id, patchBody(`{"op":"add","path":"title","value":"` + strings.Repeat("x", 200<<10) + `"}`), 400},
		"1,001 e-mails":            {"PATCH", "/Users/" + id, patchBody(`{"op":"add","path":"emails","value":[` + strings.TrimSuffix(strings.Repeat(`{"value":"x"},`, 1001), ",") + `]}`), 400},
	} {
		if a := p.do(c.method, c.path, c.body); a.status != c.status {
			t.Errorf("%s answered %d, want %d: %s", name, a.status, c.status, a.raw)
		}
	}
	p.wantJSON(p.do("GET", "/Users?filter="+url.QueryEscape(claims+":level eq 12345678901234567"), "").body, `{"totalResults":1}`)
	resp, err := http.Get(p.root + "/t/%00/scim/v2/Schemas")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the tenant U+0000 answered %d", resp.StatusCode)
	}
}
