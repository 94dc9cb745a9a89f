package scim_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim"
	"github.com/leaverhq/leaver/scim/schema"
)

func TestExtension_BehavesLikeBuiltInSchema(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	if a := p.do("POST", "/Users", `{"userName":"early","`+claims+`":{"level":1}}`); a.body[claims] != nil {
		t.Errorf("an undeclared schema was stored: %s", a.raw)
	}
	p.declare("User", claimsSchema)
	p.wantJSON(p.do("GET", "/Schemas/"+claims, "").body, `{"id":"`+claims+`","meta":{"resourceType":"Schema"}}`)
	p.wantJSON(p.do("GET", "/Schemas/"+strings.ReplaceAll(claims, ":", "%3A"), "").body, `{"id":"`+claims+`"}`)
	p.wantJSON(p.do("GET", "/ResourceTypes/User", "").body, `{"schemaExtensions":[{"schema":"`+enterprise+`"},{"schema":"`+schema.LifecycleURN+`"},{"schema":"`+claims+`","required":false}]}`)
	id := p.create("/Users", `{"userName":"ada","`+claims+`":{"badge":"B-1","scopes":["READ"],"serial":"s1","desk":{"floor":1,"room":"r1"},"pin":"1234"}}`)
	path := "/Users/" + id
	p.wantJSON(p.do("GET", path, "").body, `{"`+claims+`":{"scopes":["read"],"pin":"<absent>"}}`)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		scimType           string
	}{
		"a duplicate unique value": {"POST", "/Users", `{"userName":"bob","` + claims + `":{"badge":"B-1"}}`, 409, "uniqueness"},
		"a value in another case":  {"POST", "/Users", `{"userName":"bob","` + claims + `":{"badge":"b-1"}}`, 201, ""},
		"not a canonical value":    {"PATCH", path, patchBody(`{"op":"add","path":"` + claims + `:scopes","value":"fly"}`), 400, "invalidValue"},
		"a wrong type":             {"PATCH", path, patchBody(`{"op":"add","path":"` + claims + `:level","value":"high"}`), 400, "invalidValue"},
		"a boolean as a string":    {"PATCH", path, patchBody(`{"op":"Add","path":"` + claims + `:clearedForProdData","value":"True"}`), 200, ""},
		"an immutable value":       {"PATCH", path, patchBody(`{"op":"replace","path":"` + claims + `:serial","value":"s2"}`), 400, "mutability"},
		"an immutable sub-value":   {"PATCH", path, patchBody(`{"op":"replace","path":"` + claims + `:desk.room","value":"r2"}`), 400, "mutability"},
		"removing an immutable":    {"PATCH", path, patchBody(`{"op":"remove","path":"` + claims + `:serial"}`), 400, "mutability"},
		"repeating an immutable":   {"PATCH", path, patchBody(`{"op":"replace","path":"` + claims + `:serial","value":"S1"}`), 200, ""},
		"removing a required one":  {"PATCH", path, patchBody(`{"op":"remove","path":"` + claims + `:desk.floor"}`), 400, "invalidValue"},
		"an immutable by PUT":      {"PUT", path, `{"userName":"ada","` + claims + `":{"serial":"s3"}}`, 400, "mutability"},
	} {
		if a := p.do(c.method, c.path, c.body); a.status != c.status || (c.scimType != "" && a.body["scimType"] != c.scimType) {
			t.Errorf("%s answered %d %s, want %d %s", name, a.status, a.raw, c.status, c.scimType)
		}
	}
	// A PUT keeps attributes that the client cannot have read.
	p.do("PUT", path, `{"userName":"ada"}`)
	var stored string
	if err := p.row(`select document::text from resources where unique_name = 'ada'`).Scan(&stored); err != nil || !strings.Contains(stored, `"pin": "1234"`) || !strings.Contains(stored, `"serial": "s1"`) || !strings.Contains(stored, `"floor": 1`) {
		t.Errorf("after the PUT: %s %v", stored, err)
	}
	if a := p.do("POST", "/Users", `{"userName":"cyd","`+claims+`":{"badge":"B-1"}}`); a.status != http.StatusCreated {
		t.Errorf("reusing a unique value that was removed answered %d", a.status)
	}
	if err := p.tenants.DeleteSchema(t.Context(), p.tenant.ID, claims, func([]tenant.Schema) error { return nil }); !errors.Is(err, tenant.ErrSchemaInUse) {
		t.Errorf("a schema in use was deleted: %v", err)
	}
}

func TestExtension_URNMayBePrefixOfAnother(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.declare("User", `{"id":"urn:example:x","attributes":[{"name":"y"}]}`)
	p.declare("User", `{"id":"urn:example:x:y","attributes":[{"name":"z"}]}`)
	id := p.create("/Users", `{"userName":"ada","urn:example:x:y":{"z":"1"}}`)
	p.wantJSON(p.do("PATCH", "/Users/"+id, patchBody(`{"op":"add","path":"urn:example:x:y:z","value":"2"}`)).body, `{"urn:example:x:y":{"z":"2"},"urn:example:x":"<absent>"}`)
}

func TestExtension_InvalidSchemaIsRejected(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.declare("User", claimsSchema)
	with := func(attribute string) string {
		return `{"id":"urn:example:other","attributes":[` + attribute + `]}`
	}
	for name, definition := range map[string]string{
		"not JSON": `{`, "not a URN": `{"id":"Claims","attributes":[{"name":"a"}]}`, "a URN of the IETF": `{"id":"urn:ietf:params:scim:schemas:core:2.0:User","attributes":[{"name":"a"}]}`,
		"a URN of leaver": `{"id":"urn:leaver:params:scim:x","attributes":[{"name":"a"}]}`, "no attributes": `{"id":"urn:example:other"}`,
		"a duplicate name": with(`{"name":"a"},{"name":"A"}`), "a bad name": with(`{"name":"a.b"}`), "a common name": with(`{"name":"id"}`), "a bad type": with(`{"name":"a","type":"money"}`),
		"read-only": with(`{"name":"a","mutability":"readOnly"}`), "write-only, returned": with(`{"name":"a","mutability":"writeOnly"}`), "never, readable": with(`{"name":"a","returned":"never"}`),
		"complex in complex":             with(`{"name":"a","type":"complex","subAttributes":[{"name":"b","type":"complex","subAttributes":[{"name":"c"}]}]}`),
		"complex without sub-attributes": with(`{"name":"a","type":"complex"}`), "unique and multi-valued": with(`{"name":"a","multiValued":true,"uniqueness":"server"}`),
		"a changed type":               strings.Replace(claimsSchema, `"name":"level","type":"decimal"`, `"name":"level","type":"string"`, 1),
		"a missing attribute":          strings.Replace(claimsSchema, `{"name":"level","type":"decimal"},`, ``, 1),
		"the same URN in another case": strings.Replace(claimsSchema, claims, strings.ToUpper(claims[4:8])+claims[8:], 1),
	} {
		_, err := p.tenants.PutSchema(t.Context(), p.tenant.ID, tenant.Schema{ResourceType: "User", Definition: json.RawMessage(definition)}, scim.CheckDeclared)
		var invalid *schema.DeclarationError
		if !errors.As(err, &invalid) {
			t.Errorf("%s: %v, want an InvalidSchemaError", name, err)
		}
	}
	p.declare("User", strings.Replace(claimsSchema, `"attributes":[`, `"attributes":[{"name":"more"},`, 1))
	if a := p.do("POST", "/Users", `{"userName":"x","`+claims+`":{"more":"y"}}`); a.body[claims] == nil {
		t.Errorf("an added attribute was not stored: %s", a.raw)
	}
}

// TestSchemas_HaveTheMembersOfTheSpecification lists the members of RFC 7643 section 7, of which clients check
// that there are no others.
func TestSchemas_HaveTheMembersOfTheSpecification(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	known := map[string]bool{}
	for _, name := range []string{
		"name", "type", "subAttributes", "multiValued", "description", "required", "canonicalValues", "caseExact", "mutability",
		"returned", "uniqueness", "referenceTypes",
	} {
		known[name] = true
	}
	var check func(attributes any)
	check = func(attributes any) {
		for _, a := range attributes.([]any) {
			attribute := a.(map[string]any)
			for member := range attribute {
				if !known[member] {
					t.Errorf("%v has the member %s", attribute["name"], member)
				}
			}
			if subs, ok := attribute["subAttributes"]; ok {
				check(subs)
			}
		}
	}
	for _, s := range p.do("GET", "/Schemas", "").body["Resources"].([]any) {
		check(s.(map[string]any)["attributes"])
	}
}

// TestExtension_CannotChangeHowValuesAreStored declares an attribute with members that are leaver's own.
func TestExtension_CannotChangeHowValuesAreStored(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.declare("User", `{"id":"`+claims+`","attributes":[{"name":"level","Edge":true,"Unbounded":true,"Discarded":true,"Alias":"active"}]}`)
	id := p.create("/Users", `{"userName":"ada","`+claims+`":{"level":"high"}}`)
	p.wantJSON(p.do("GET", "/Users/"+id, "").body, `{"`+claims+`":{"level":"high"}}`)
}
