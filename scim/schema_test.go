package scim_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim"
)

// TestSchemasTellTheTruth tries every attribute of every schema by its declared
// mutability and returned-ness, as conformance suites do.
func TestSchemasTellTheTruth(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.declare("User", claimsSchema)
	ada, bob := p.create("/Users", `{"userName":"owner"}`), p.create("/Users", `{"userName":"other"}`)
	first := p.create("/Agents", `{"agentUserName":"first","owners":["`+ada+`"]}`)
	second := p.create("/Agents", `{"agentUserName":"second","owners":["`+ada+`"]}`)
	linked := links{"owners": {ada, bob}, "members": {ada, bob}, "parent": {first, second}}
	schemas := map[string]map[string]any{}
	for _, s := range p.do("GET", "/Schemas", "").body["Resources"].([]any) {
		schemas[s.(map[string]any)["id"].(string)] = s.(map[string]any)
	}
	for _, rt := range p.do("GET", "/ResourceTypes", "").body["Resources"].([]any) {
		rt := rt.(map[string]any)
		urns := []string{rt["schema"].(string)}
		extensions, _ := rt["schemaExtensions"].([]any)
		for _, e := range extensions {
			urns = append(urns, e.(map[string]any)["schema"].(string))
		}
		for _, urn := range urns {
			for _, a := range schemas[urn]["attributes"].([]any) {
				a := a.(map[string]any)
				t.Run(fmt.Sprintf("%s %s:%s", rt["name"], urn, a["name"]), func(t *testing.T) {
					p := *p
					p.t = t
					p.tryAttribute(rt["endpoint"].(string), urn, urn == rt["schema"], a, linked)
				})
			}
		}
	}
}

// links are two resources that each attribute of edges may lead to.
type links map[string][2]string

var tried int

func (p *provider) tryAttribute(endpoint, urn string, core bool, a map[string]any, linked links) {
	t := p.t
	t.Helper()
	tried++
	name := a["name"].(string)
	body := map[string]any{"userName": fmt.Sprint("u", tried), "agentUserName": fmt.Sprint("a", tried), "displayName": fmt.Sprint("d", tried), "owners": []any{map[string]any{"value": linked["owners"][0]}}}
	value := sample(a, linked, "x")
	if core {
		body[name] = value
	} else {
		body[urn] = map[string]any{name: value}
	}
	encoded, _ := json.Marshal(body)
	created := p.do("POST", endpoint, string(encoded))
	if created.status != http.StatusCreated {
		t.Fatalf("a POST with %s answered %d: %s", name, created.status, created.raw)
	}
	path, query := urn+":"+name, "?attributes="+urn+":"+name
	resource := endpoint + "/" + created.body["id"].(string)
	of := func(body map[string]any) any {
		if core {
			return body[name]
		}
		inner, _ := body[urn].(map[string]any)
		return inner[name]
	}
	wantByDefault := a["mutability"] != "readOnly" && a["returned"] != "never" && a["returned"] != "request"
	if got := of(p.do("GET", resource, "").body); (got != nil) != wantByDefault {
		t.Errorf("returned %v, mutability %v: read by default it is %v", a["returned"], a["mutability"], got)
	}
	wantAsked := a["mutability"] != "readOnly" && a["returned"] != "never"
	if got := of(p.do("GET", resource+query, "").body); (got != nil) != wantAsked {
		t.Errorf("returned %v: asked for it is %v", a["returned"], got)
	}
	other, _ := json.Marshal(sample(a, linked, "y"))
	patched := p.do("PATCH", resource, patchBody(fmt.Sprintf(`{"op":"replace","path":%q,"value":%s}`, path, other)))
	switch a["mutability"] {
	case "immutable":
		if patched.status != http.StatusBadRequest || patched.body["scimType"] != "mutability" {
			t.Errorf("an immutable attribute was changed: %d %s", patched.status, patched.raw)
		}
	case "readOnly":
		if patched.status != http.StatusOK || patched.body["meta"].(map[string]any)["version"] != `W/"1"` {
			t.Errorf("a read-only attribute was written: %d %s", patched.status, patched.raw)
		}
	default:
		if patched.status != http.StatusOK {
			t.Errorf("a PATCH answered %d: %s", patched.status, patched.raw)
		}
		if got := of(p.do("GET", resource+query, "").body); a["returned"] != "never" && fmt.Sprint(got) == fmt.Sprint(of(created.body)) && a["type"] != "reference" {
			t.Errorf("the PATCH changed nothing: %v", got)
		}
	}
	if required, _ := a["required"].(bool); required && core {
		if removed := p.do("PATCH", resource, patchBody(fmt.Sprintf(`{"op":"remove","path":%q}`, path))); removed.status != http.StatusBadRequest {
			t.Errorf("a required attribute was removed: %d", removed.status)
		}
	}
}

// sample is a value that the attribute takes; another text makes another value.
func sample(a map[string]any, linked links, text string) any {
	value := sampleOne(a, linked, text)
	if a["multiValued"] == true {
		return []any{value}
	}
	return value
}

func sampleOne(a map[string]any, linked links, text string) any {
	switch a["type"] {
	case "boolean":
		return text == "x"
	case "integer":
		return len(text) + int(text[0])
	case "decimal":
		return 1.5 + float64(text[0])
	case "dateTime":
		return fmt.Sprintf("20%d-01-01T00:00:00Z", 10+text[0]%80)
	case "binary":
		return "YWJj" + strings.ToUpper(text) + "A=="
	case "complex":
		object, original := map[string]any{}, text
		for _, s := range a["subAttributes"].([]any) {
			s := s.(map[string]any)
			if s["name"] != "primary" && s["mutability"] != "readOnly" {
				text = original
				if s["mutability"] == "immutable" {
					text = "x" // which never changes
				}
				object[s["name"].(string)] = sampleOne(s, linked, text)
			}
		}
		if targets, ok := linked[a["name"].(string)]; ok {
			object["value"] = targets[original[0]-'x']
		}
		return object
	}
	if canonical, ok := a["canonicalValues"].([]any); ok {
		return canonical[int(text[0])%len(canonical)]
	}
	return fmt.Sprint(text, tried)
}

func TestATenantsOwnSchemaBehavesLikeABuiltInOne(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	if a := p.do("POST", "/Users", `{"userName":"early","`+claims+`":{"level":1}}`); a.body[claims] != nil {
		t.Errorf("an undeclared schema was stored: %s", a.raw)
	}
	p.declare("User", claimsSchema)
	p.wantJSON(p.do("GET", "/Schemas/"+claims, "").body, `{"id":"`+claims+`","meta":{"resourceType":"Schema"}}`)
	p.wantJSON(p.do("GET", "/ResourceTypes/User", "").body, `{"schemaExtensions":[{"schema":"`+enterprise+`"},{"schema":"`+scim.LifecycleURN+`"},{"schema":"`+claims+`","required":false}]}`)
	id := p.create("/Users", `{"userName":"ada","`+claims+`":{"badge":"B-1","scopes":["READ"],"serial":"s1","desk":{"floor":1,"room":"r1"},"pin":"1234"}}`)
	path := "/Users/" + id
	p.wantJSON(p.do("GET", path, "").body, `{"`+claims+`":{"scopes":["read"],"pin":"<absent>"}}`)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		scimType           string
	}{
		"a value twice":             {"POST", "/Users", `{"userName":"bob","` + claims + `":{"badge":"B-1"}}`, 409, "uniqueness"},
		"in another case":           {"POST", "/Users", `{"userName":"bob","` + claims + `":{"badge":"b-1"}}`, 201, ""},
		"no canonical value":        {"PATCH", path, patchBody(`{"op":"add","path":"` + claims + `:scopes","value":"fly"}`), 400, "invalidValue"},
		"a wrong type":              {"PATCH", path, patchBody(`{"op":"add","path":"` + claims + `:level","value":"high"}`), 400, "invalidValue"},
		"a boolean as Entra has it": {"PATCH", path, patchBody(`{"op":"Add","path":"` + claims + `:clearedForProdData","value":"True"}`), 200, ""},
		"an immutable value":        {"PATCH", path, patchBody(`{"op":"replace","path":"` + claims + `:serial","value":"s2"}`), 400, "mutability"},
		"an immutable sub-value":    {"PATCH", path, patchBody(`{"op":"replace","path":"` + claims + `:desk.room","value":"r2"}`), 400, "mutability"},
		"an immutable removed":      {"PATCH", path, patchBody(`{"op":"remove","path":"` + claims + `:serial"}`), 400, "mutability"},
		"an immutable repeated":     {"PATCH", path, patchBody(`{"op":"replace","path":"` + claims + `:serial","value":"S1"}`), 200, ""},
		"a required sub-value":      {"PATCH", path, patchBody(`{"op":"remove","path":"` + claims + `:desk.floor"}`), 400, "invalidValue"},
		"an immutable by PUT":       {"PUT", path, `{"userName":"ada","` + claims + `":{"serial":"s3"}}`, 400, "mutability"},
	} {
		if a := p.do(c.method, c.path, c.body); a.status != c.status || (c.scimType != "" && a.body["scimType"] != c.scimType) {
			t.Errorf("%s answered %d %s, want %d %s", name, a.status, a.raw, c.status, c.scimType)
		}
	}
	// A PUT cannot mean to remove what it cannot have read.
	p.do("PUT", path, `{"userName":"ada"}`)
	var stored string
	if err := p.row(`select document::text from resources where unique_name = 'ada'`).Scan(&stored); err != nil || !strings.Contains(stored, `"pin": "1234"`) || !strings.Contains(stored, `"serial": "s1"`) || !strings.Contains(stored, `"floor": 1`) {
		t.Errorf("after the PUT: %s %v", stored, err)
	}
	if a := p.do("POST", "/Users", `{"userName":"cyd","`+claims+`":{"badge":"B-1"}}`); a.status != http.StatusCreated {
		t.Errorf("a unique value that was given up answered %d", a.status)
	}
	if err := p.tenants.DeleteSchema(t.Context(), p.tenant.ID, claims); !errors.Is(err, tenant.ErrSchemaInUse) {
		t.Errorf("a schema in use was deleted: %v", err)
	}
}

func TestSchemasThatCannotBeKeptAreRefused(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.declare("User", claimsSchema)
	with := func(attribute string) string {
		return `{"id":"urn:example:other","attributes":[` + attribute + `]}`
	}
	for name, definition := range map[string]string{
		"no JSON": `{`, "no URN": `{"id":"Claims","attributes":[{"name":"a"}]}`, "the IETF's": `{"id":"urn:ietf:params:scim:schemas:core:2.0:User","attributes":[{"name":"a"}]}`,
		"leaver's": `{"id":"urn:leaver:params:scim:x","attributes":[{"name":"a"}]}`, "no attributes": `{"id":"urn:example:other"}`,
		"a name twice": with(`{"name":"a"},{"name":"A"}`), "a bad name": with(`{"name":"a.b"}`), "a common name": with(`{"name":"id"}`), "a bad type": with(`{"name":"a","type":"money"}`),
		"read-only": with(`{"name":"a","mutability":"readOnly"}`), "write-only, returned": with(`{"name":"a","mutability":"writeOnly"}`), "never, readable": with(`{"name":"a","returned":"never"}`),
		"complex in complex": with(`{"name":"a","type":"complex","subAttributes":[{"name":"b","type":"complex","subAttributes":[{"name":"c"}]}]}`),
		"complex of nothing": with(`{"name":"a","type":"complex"}`), "unique and many": with(`{"name":"a","multiValued":true,"uniqueness":"server"}`),
		"another type for what is there": strings.Replace(claimsSchema, `"name":"level","type":"decimal"`, `"name":"level","type":"string"`, 1),
		"an attribute less":              strings.Replace(claimsSchema, `{"name":"level","type":"decimal"},`, ``, 1),
		"the same in another case":       strings.Replace(claimsSchema, claims, strings.ToUpper(claims[4:8])+claims[8:], 1),
	} {
		_, err := p.tenants.PutSchema(t.Context(), p.tenant.ID, tenant.Schema{ResourceType: "User", Definition: json.RawMessage(definition)}, scim.CheckDeclared)
		var invalid *tenant.InvalidSchemaError
		if !errors.As(err, &invalid) {
			t.Errorf("%s: %v, want an InvalidSchemaError", name, err)
		}
	}
	p.declare("User", strings.Replace(claimsSchema, `"attributes":[`, `"attributes":[{"name":"more"},`, 1))
	if a := p.do("POST", "/Users", `{"userName":"x","`+claims+`":{"more":"y"}}`); a.body[claims] == nil {
		t.Errorf("an attribute that was added: %s", a.raw)
	}
}
