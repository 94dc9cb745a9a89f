package scim_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/tenant"
)

func TestDeactivation_SucceedsWhenRestIsInvalid(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	strict := p.asTenant(t, tenant.ProfileStrict)
	taken := `"userName":"taken"`
	p.create("/Users", "{"+taken+"}")
	for name, c := range map[string]struct {
		request string
		applies bool // the whole request is applied, not only its deactivation
	}{
		"an unknown sub-attribute":           {`PATCH {"op":"add","path":"name.displayName","value":"x"},{"op":"replace","path":"active","value":"False"}`, true},
		"an unknown one behind a filter":     {`PATCH {"op":"add","path":"roles[primary eq \"True\"].displayName","value":"x"},{"op":"replace","path":"active","value":false}`, true},
		"a wrong type":                       {`PATCH {"op":"add","path":"title","value":true},{"op":"replace","path":"active","value":"False"}`, false},
		"a wrong type behind it":             {`PATCH {"op":"replace","path":"active","value":"False"},{"op":"add","path":"title","value":true}`, false},
		"a wrong type in the value":          {`PATCH {"op":"replace","value":{"active":false,"title":true}}`, false},
		"an unknown op":                      {`PATCH {"op":"destroy","path":"title"},{"op":"replace","path":"active","value":false}`, false},
		"a bad path":                         {`PATCH {"op":"add","path":"emails[","value":1},{"op":"replace","path":"active","value":false}`, false},
		"the name of another user":           {`PATCH {"op":"replace","value":{"active":false,` + taken + `}}`, false},
		"a required attribute removed":       {`PATCH {"op":"remove","path":"userName"},{"op":"replace","value":{"urn:ietf:params:scim:schemas:core:2.0:User":{"active":false}}}`, false},
		"an attribute that looks like it":    {`PATCH {"op":"replace","value":{"active":false,"accountEnabled":false}}`, false},
		"a name twice":                       {`PATCH {"op":"replace","value":{"active":false,"title":"a","TITLE":"b"}}`, false},
		"an op twice":                        {`PATCH {"op":"add","OP":"add","path":"title","value":"x"},{"op":"replace","path":"active","value":false}`, false},
		"a list of the same value":           {`PATCH {"op":"replace","path":"active","value":["False","False"]}`, false},
		"a PUT with a name twice":            {`PUT {"userName":"%s","active":false,"title":"a","title":"b"}`, false},
		"a PUT with a wrong type":            {`PUT {"userName":"%s","active":"False","title":true}`, false},
		"a PUT with the name of another":     {`PUT {` + taken + `,"active":false}`, false},
		"a PUT without the required name":    {`PUT {"active":false}`, false},
		"a PUT with a name that is too long": {`PUT {"active":false,"userName":"` + strings.Repeat("x", 2000) + `"}`, false},
		"a PUT with a list of 2,000 e-mails": {`PUT {"active":false,"userName":"%s","emails":[` + strings.TrimSuffix(strings.Repeat(`{"value":"x"},`, 2000), ",") + `]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, p := range []*provider{p, strict} {
				id := p.create("/Users", `{"userName":"`+name+`","active":true}`)
				method, body, _ := strings.Cut(strings.ReplaceAll(c.request, "%s", name), " ")
				if method == "PATCH" {
					body = patchBody(body)
				}
				a := p.do(method, "/Users/"+id, body)
				if p.token == strict.token {
					if a.status/100 == 2 && !strings.Contains(c.request, taken) || p.restricted(id) && !strings.Contains(c.request, taken) {
						t.Errorf("strict: answered %d, restricted %t: %s", a.status, p.restricted(id), a.raw)
					}
					continue
				}
				if a.status != http.StatusOK || !p.restricted(id) || a.body["active"] != false || a.body["userName"] != name {
					t.Errorf("answered %d, restricted %t: %s", a.status, p.restricted(id), a.raw)
				}
				var told int
				err := p.row(`select count(*) from changes where resource_id = $1 and ignored <> '{}'`, id).Scan(&told)
				if want := map[bool]int{true: 0, false: 1}[c.applies]; err != nil || told != want {
					t.Errorf("the audit trail has %d refusals, want %d (%v)", told, want, err)
				}
			}
		})
	}
}

func TestDeactivation_InvalidRequestDoesNotDeactivate(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	other := p.create("/Users", `{"userName":"other"}`)
	for name, request := range map[string]string{
		"the body of another user":  `PUT {"id":"` + other + `","userName":"x","active":false}`,
		"a later activation":        `PATCH {"op":"replace","path":"active","value":false},{"op":"replace","path":"active","value":true},{"op":"add","path":"title","value":true}`,
		"a sub-attribute of active": `PATCH {"op":"replace","path":"active.value","value":false}`,
		"a number":                  `PATCH {"op":"replace","path":"active","value":0}`,
		"a value twice":             `PATCH {"op":"replace","path":"active","value":false,"value":true}`,
		"active twice":              `PATCH {"op":"replace","value":{"active":false,"Active":true}}`,
		"a PUT with active twice":   `PUT {"userName":"x","active":false,"active":true}`,
		"an id twice":               `PUT {"ID":"x","id":"` + other + `","userName":"x","active":false}`,
		"another's ID":              `PUT {"ID":"` + other + `","userName":"x","active":false}`,
		"an empty string":           `PATCH {"op":"replace","path":"active","value":""}`,
	} {
		id := p.create("/Users", `{"userName":"`+name+`","active":true}`)
		method, body, _ := strings.Cut(request, " ")
		if method == "PATCH" {
			body = patchBody(body)
		}
		if a := p.do(method, "/Users/"+id, body); a.status != http.StatusBadRequest || p.restricted(id) {
			t.Errorf("%s: answered %d, restricted %t: %s", name, a.status, p.restricted(id), a.raw)
		}
	}
	id := p.create("/Users", `{"userName":"ada","active":true}`)
	body := patchBody(`{"op":"replace","value":{"active":false,"title":true}}`)
	if a := p.do("PATCH", "/Users/"+id, body, "If-Match", `W/"9"`); a.status != http.StatusPreconditionFailed || p.restricted(id) {
		t.Errorf("with a stale version: answered %d, restricted %t", a.status, p.restricted(id))
	}
}

func TestDeactivation_MappedToAnotherAttributeIsRefused(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"ada","active":true}`)
	for _, operation := range []string{
		`{"op":"Replace","path":"accountEnabled","value":"False"}`, `{"op":"replace","value":{"enabled":false}}`, `{"op":"replace","path":"User.active","value":false}`,
		`{"op":"replace","path":"urn:example:2.0:User:active","value":"False"}`, `{"op":"add","path":"is_active","value":[{"value":"False"}]}`,
		`{"op":"replace","path":"status","value":"INACTIVE"}`, `{"op":"replace","path":"suspended","value":true}`, `{"op":"replace","value":{"disabled":"True"}}`,
	} {
		p.wantRefused("PATCH", "/Users/"+id, patchBody(operation), "invalidPath")
	}
	for _, member := range []string{`"enabled":false`, `"accountEnabled":"False"`, `"urn:example:2.0:User":{"active":false}`} {
		p.wantRefused("PUT", "/Users/"+id, `{"userName":"ada",`+member+`}`, "invalidPath")
		p.wantRefused("POST", "/Users", `{"userName":"bob",`+member+`}`, "invalidPath")
	}
	for _, member := range []string{`"enabled":true`, `"status":"ACTIVE"`, `"locked":false`, `"emails":[{"value":"x","active":false}]`} {
		p.wantOK("PUT", "/Users/"+id, `{"userName":"ada",`+member+`}`)
	}
	p.wantOK("PATCH", "/Groups/"+p.create("/Groups", `{"displayName":"team"}`), patchBody(`{"op":"replace","path":"status","value":"inactive"}`))
}

func TestDeactivation_AcceptsActiveAsListOfOne(t *testing.T) {
	p := newProvider(t, tenant.ProfileEntra)
	for _, value := range []string{`[{"value":"False"}]`, `["False"]`, `[{"$ref":null,"value":"False"}]`, `{"value":false}`} {
		id := p.create("/Users", `{"userName":"`+strings.NewReplacer(`"`, "", "[", "", "{", "").Replace(value)+`","active":true}`)
		if a := p.wantOK("PATCH", "/Users/"+id, patchBody(`{"op":"Replace","path":"active","value":`+value+`}`)); a.body["active"] != false || !p.restricted(id) {
			t.Errorf("%s: restricted %t: %s", value, p.restricted(id), a.raw)
		}
	}
}

func TestDeactivation_PutWithoutActiveIsKept(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"ada","active":true}`)
	p.wantOK("PATCH", "/Users/"+id, patchBody(`{"op":"replace","path":"active","value":false}`))
	if a := p.wantOK("PUT", "/Users/"+id, `{"userName":"ada","title":"x"}`); a.body["active"] != false || !p.restricted(id) {
		t.Errorf("restricted %t: %s", p.restricted(id), a.raw)
	}
	p.wantJSON(find(p, "/Users", `active eq false`).body, `{"totalResults":1,"Resources":[{"id":"`+id+`"}]}`)
	p.wantJSON(find(p, "/Users", `active eq true`).body, `{"totalResults":0}`)
}

// TestDeactivation_SucceedsWithOtherMessageOrQuery deactivates by a message that names another schema, and with a query
// that is refused.
func TestDeactivation_SucceedsWithOtherMessageOrQuery(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	for query, body := range map[string]string{
		"": `{"schemas":["urn:example:patch"],"Operations":[{"op":"replace","path":"active","value":false}]}`,
		"?attributes=userName&excludedAttributes=name": patchBody(`{"op":"replace","path":"active","value":false}`),
	} {
		id := p.create("/Users", `{"userName":"ada`+strings.TrimLeft(query, "?")+`"}`)
		if a := p.do("PATCH", "/Users/"+id+query, body); a.status != http.StatusOK || !p.restricted(id) {
			t.Errorf("%q: answered %d, restricted %t: %s", query, a.status, p.restricted(id), a.raw)
		}
	}
}
