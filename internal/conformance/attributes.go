package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// attributeChecks returns the check of the attributes that /Schemas declares.
func attributeChecks() []check {
	return []check{{RFC, "attributes behave as /Schemas declares (mutability, returned, required)", func(p *probe) error {
		tried := 0
		var wrong []error
		for _, rt := range p.types {
			links, err := p.links(rt)
			if err != nil {
				return err
			}
			for _, urn := range urnsOf(rt) {
				attributes, _ := p.schemas[urn]["attributes"].([]any)
				for _, a := range attributes {
					declared, ok := a.(map[string]any)
					if !ok || isCommon(declared["name"]) {
						continue
					}
					tried++
					t := attempt{p: p, rt: rt, urn: urn, a: declared, links: links}
					if err := t.run(); err != nil {
						wrong = append(wrong, fmt.Errorf("%v %s:%v: %w", rt["name"], urn, declared["name"], err))
					}
				}
			}
		}
		if tried == 0 {
			return errors.New("/Schemas declares no attributes")
		}
		return errors.Join(wrong...)
	}}}
}

// isCommon reports whether an attribute is common (RFC 7643 section 3.1). Some providers repeat
// common attributes in their schemas.
func isCommon(name any) bool {
	return slices.Contains([]any{"id", "meta", "schemas", "externalId"}, name)
}

// links creates the resources that reference attributes may refer to, two for each attribute.
func (p *probe) links(map[string]any) (map[string][2]string, error) {
	var users, agents [2]string
	for i := range users {
		path, _, err := p.user("")
		if err != nil {
			return nil, err
		}
		users[i] = idOf(path)
	}
	hasAgents := slices.ContainsFunc(p.types, func(rt map[string]any) bool { return rt["endpoint"] == "/Agents" })
	for i := range agents {
		if !hasAgents {
			break
		}
		path, _, err := p.create("/Agents", fmt.Sprintf(`{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Agent"],`+
			`"agentUserName":%q,"owners":[{"value":%q}]}`, p.name("agent"), users[0]))
		if err != nil {
			return nil, err
		}
		agents[i] = idOf(path)
	}
	return map[string][2]string{"members": users, "owners": users, "manager": users, "parent": agents}, nil
}

// attempt tests one attribute.
type attempt struct {
	p     *probe
	rt    map[string]any
	urn   string
	a     map[string]any
	links map[string][2]string
}

func (t attempt) core() bool { return t.urn == t.rt["schema"] }

func (t attempt) run() error {
	name := fmt.Sprint(t.a["name"])
	body := map[string]any{"schemas": []any{t.rt["schema"]}}
	t.fillRequired(body)
	value := t.sample(first)
	if t.core() {
		if body[name] == nil || t.a["uniqueness"] != "server" {
			body[name] = value
		}
	} else {
		body["schemas"] = []any{t.rt["schema"], t.urn}
		body[t.urn] = map[string]any{name: value}
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	path, created, err := t.p.create(fmt.Sprint(t.rt["endpoint"]), string(encoded))
	if err != nil {
		return err
	}
	if err := t.returned(path); err != nil {
		return err
	}
	return t.mutable(path, t.of(created))
}

// fillRequired sets the required attributes of the resource type.
func (t attempt) fillRequired(body map[string]any) {
	attributes, _ := t.p.schemas[fmt.Sprint(t.rt["schema"])]["attributes"].([]any)
	for _, a := range attributes {
		declared, _ := a.(map[string]any)
		name := fmt.Sprint(declared["name"])
		switch {
		case declared["required"] != true || isCommon(name):
		case declared["uniqueness"] == "server":
			body[name] = t.p.name("attribute")
		default:
			body[name] = attempt{t.p, t.rt, t.urn, declared, t.links}.sample(first)
		}
	}
}

// of returns the attribute's value in a response.
func (t attempt) of(a answer) any {
	members := a.body
	if !t.core() {
		members, _ = a.body[t.urn].(map[string]any)
	}
	return members[fmt.Sprint(t.a["name"])]
}

func (t attempt) path() string { return fmt.Sprintf("%s:%v", t.urn, t.a["name"]) }

// returned checks that the attribute is returned by default, on request or never, as declared
// (RFC 7643 section 7).
func (t attempt) returned(path string) error {
	written := t.a["mutability"] != "readOnly"
	for query, want := range map[string]bool{
		"":                        written && t.a["returned"] != "never" && t.a["returned"] != "request",
		"?attributes=" + t.path(): written && t.a["returned"] != "never",
	} {
		a, err := t.p.want(http.StatusOK, http.MethodGet, path+query, "")
		if err != nil {
			return err
		}
		if got := t.of(a); (got != nil) != want {
			return fmt.Errorf("mutability %v, returned %v: a GET%s returned %v",
				t.a["mutability"], t.a["returned"], query, got)
		}
	}
	return nil
}

// mutable checks that a PATCH changes the attribute exactly if its mutability allows it.
func (t attempt) mutable(path string, before any) error {
	other, err := json.Marshal(t.sample(second))
	if err != nil {
		return err
	}
	a, err := t.p.do(http.MethodPatch, path,
		patchOf(fmt.Sprintf(`{"op":"replace","path":%q,"value":%s}`, t.path(), other)))
	if err != nil {
		return err
	}
	refused := a.status == http.StatusBadRequest && a.body["scimType"] == "mutability"
	switch t.a["mutability"] {
	case "immutable":
		if !refused {
			return fmt.Errorf("a PATCH of an immutable attribute was not refused: %v", a)
		}
		return nil
	case "readOnly":
		if !refused && a.status != http.StatusOK && a.status != http.StatusNoContent {
			return fmt.Errorf("a PATCH of a read-only attribute: %v", a)
		}
	default:
		if a.status != http.StatusOK && a.status != http.StatusNoContent {
			return fmt.Errorf("a PATCH with %s: %v", other, a)
		}
	}
	after, err := t.p.want(http.StatusOK, http.MethodGet, path+"?attributes="+t.path(), "")
	if err != nil {
		return err
	}
	changed := fmt.Sprint(t.of(after)) != fmt.Sprint(before)
	writable := t.a["mutability"] != "readOnly" && t.a["returned"] != "never"
	if t.a["returned"] != "request" && changed != writable {
		return fmt.Errorf("mutability %v: a PATCH with %s left %v of %v", t.a["mutability"], other, t.of(after), before)
	}
	if t.a["required"] != true || !t.core() || t.a["name"] == "members" {
		return nil
	}
	return t.p.refused(http.StatusBadRequest, "", http.MethodPatch, path,
		patchOf(fmt.Sprintf(`{"op":"remove","path":%q}`, t.path())))
}

// which selects one of an attribute's two sample values.
type which int

const (
	first which = iota
	second
)

// sample returns a valid value of the attribute.
func (t attempt) sample(w which) any {
	value := t.one(t.a, w)
	if t.a["multiValued"] == true {
		return []any{value}
	}
	return value
}

func (t attempt) one(a map[string]any, w which) any {
	switch a["type"] {
	case "boolean":
		return w == first
	case "integer":
		return 7 + int(w)
	case "decimal":
		return 1.5 + float64(w)
	case "dateTime":
		return fmt.Sprintf("20%d-01-01T00:00:00Z", 10+w)
	case "binary":
		return []string{"YWJj", "eHl6"}[w]
	case "complex":
		return t.object(a, w)
	}
	if canonical, ok := a["canonicalValues"].([]any); ok && len(canonical) > 0 {
		return canonical[int(w)%len(canonical)]
	}
	text := []string{"probe one", "probe two"}[w]
	if a["type"] == "reference" {
		return "https://probe.example/" + text[6:]
	}
	if strings.Contains(strings.ToLower(fmt.Sprint(t.a["name"])), "email") {
		return text[6:] + "@probe.example"
	}
	if a["uniqueness"] == "server" || a["uniqueness"] == "global" {
		return t.p.name("attribute")
	}
	return text
}

func (t attempt) object(a map[string]any, w which) any {
	object := make(map[string]any)
	subs, _ := a["subAttributes"].([]any)
	for _, s := range subs {
		sub, _ := s.(map[string]any)
		switch {
		case sub["name"] == "primary" || sub["name"] == "$ref" || sub["mutability"] == "readOnly":
		case sub["mutability"] == "immutable":
			object[fmt.Sprint(sub["name"])] = t.one(sub, first)
		default:
			object[fmt.Sprint(sub["name"])] = t.one(sub, w)
		}
	}
	if targets, ok := t.links[fmt.Sprint(a["name"])]; ok {
		object["value"] = targets[w]
	}
	return object
}
