package patch

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/leaverhq/leaver/scim/schema"
)

// Reader converts a client's JSON into Objects according to the schema. A strict
// reader rejects unknown attributes; others ignore them.
type Reader struct {
	Strict bool
	// Interop is set for the SCIM Interoperability Profile (draft-zollner-scim-interop-profile), for a strict
	// reader: PATCH operations have paths, an unknown attribute is invalidSyntax, and a replaced complex
	// attribute loses the sub-attributes that are not given.
	Interop bool
	// SkipsMembers skips members that are not resources of the tenant instead of rejecting them.
	SkipsMembers bool
}

// unknown returns the kind of the error about an unknown attribute or schema, which is otherwise usual.
func (rd Reader) unknown(usual schema.ErrorKind) schema.ErrorKind {
	if rd.Interop {
		return schema.InvalidSyntax
	}
	return usual
}

// Resource reads a whole resource, as sent by POST and PUT.
func (rd Reader) Resource(rt *schema.ResourceType, raw map[string]any) (schema.Object, error) {
	out := schema.Object{}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		value := raw[key]
		if strings.EqualFold(key, "schemas") {
			if err := rd.checkSchemas(rt, value); err != nil {
				return nil, err
			}
			continue
		}
		within, rest := rt.SplitURN(key)
		if rest == "" { // a bare URN: the extension's object, or the core's
			if err := rd.nested(out, rt, within, value); err != nil {
				return nil, err
			}
			continue
		}
		if err := rd.topLevel(out, rt, within, rest, value); err != nil {
			return nil, err
		}
	}
	return prune(out, rt), nil
}

// nested reads the object under a schema's URN.
func (rd Reader) nested(out schema.Object, rt *schema.ResourceType, within *schema.Schema, value any) error {
	if value == nil {
		return nil
	}
	members, ok := value.(map[string]any)
	if !ok {
		return schema.Errorf(schema.InvalidValue, "%s must be an object", within.ID)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		v := members[name]
		if strings.EqualFold(name, "schemas") {
			continue // python-scim clients send schemas here
		}
		if err := rd.topLevel(out, rt, within, name, v); err != nil {
			return err
		}
	}
	return nil
}

// topLevel reads an attribute of a schema.
func (rd Reader) topLevel(
	out schema.Object, rt *schema.ResourceType, within *schema.Schema, name string, value any,
) error {
	if schema.FindAttribute(within.Attributes, name) == nil && !rd.Interop {
		if err := misdirected(rt, name, value); err != nil {
			return err
		}
	}
	return rd.member(container(out, rt, within), within.Attributes, name, value)
}

// container returns the object that holds a schema's attributes: the resource itself, or
// the object under the extension's URN, which it creates if absent.
func container(out schema.Object, rt *schema.ResourceType, within *schema.Schema) schema.Object {
	if within == rt.Schema {
		return out
	}
	inner, ok := out[within.ID].(schema.Object)
	if !ok {
		inner = schema.Object{}
		out[within.ID] = inner
	}
	return inner
}

// prune removes empty extensions.
func prune(out schema.Object, rt *schema.ResourceType) schema.Object {
	for _, extension := range rt.Extensions {
		if inner, ok := out[extension.ID].(schema.Object); ok && len(inner) == 0 {
			delete(out, extension.ID)
		}
	}
	return out
}

func (rd Reader) checkSchemas(rt *schema.ResourceType, value any) error {
	if !rd.Strict {
		return nil
	}
	list, _ := value.([]any)
	for _, v := range list {
		urn, _ := v.(string)
		if !strings.EqualFold(urn, rt.Schema.ID) && rt.Extension(urn) == nil {
			return schema.Errorf(rd.unknown(schema.InvalidValue), "schemas: %q is not a schema of %s", urn, rt.Name)
		}
	}
	return nil
}

// member reads one attribute into out. It ignores read-only attributes, and an absent
// value leaves out unchanged.
func (rd Reader) member(out schema.Object, attributes []schema.Attribute, name string, value any) error {
	a := schema.FindAttribute(attributes, name)
	if a == nil {
		if rd.Strict && !schema.IsCommon(name) {
			return schema.Errorf(rd.unknown(schema.InvalidValue), "the schema has no attribute %q", name)
		}
		return nil
	}
	if a.Mutability == schema.ReadOnly {
		return nil
	}
	if _, twice := out[a.Name]; twice {
		if a.Alias != "" && strings.EqualFold(name, a.Alias) {
			return nil // the attribute's own name takes precedence over its alias
		}
		return schema.Errorf(schema.InvalidSyntax, "%s is given twice", a.Name)
	}
	read, err := rd.value(a, value)
	if err != nil {
		return err
	}
	if read != nil {
		out[a.Name] = read
	}
	return nil
}

// value coerces a value to the attribute's type; nil means absent.
func (rd Reader) value(a *schema.Attribute, value any) (any, error) {
	if !a.MultiValued {
		if list, ok := value.([]any); ok && a.Type == schema.TypeComplex {
			// Entra sends a manager as a list of one.
			switch {
			case len(list) == 0:
				return nil, nil //nolint:nilnil // absent is a value here
			case len(list) > 1:
				return nil, schema.Errorf(schema.InvalidValue, "%s has one value, got a list of %d", a.Name, len(list))
			case list[0] == nil && a.Edge:
				return nil, withoutValue(a)
			}
			value = list[0]
		}
		if a.Type != schema.TypeComplex && !rd.Strict {
			value = unwrapped(value)
		}
		return rd.single(a, value)
	}
	if value == nil {
		return nil, nil //nolint:nilnil // absent is a value here
	}
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	if !a.Unbounded && len(list) > schema.MaxElements {
		return nil, schema.Errorf(schema.TooMany, "%s must have at most %d elements, got %d", a.Name, schema.MaxElements,
			len(list))
	}
	var out []any
	for _, v := range list {
		if v == nil && a.Edge {
			return nil, withoutValue(a)
		}
		read, err := rd.single(a, v)
		if err != nil {
			return nil, err
		}
		if read != nil {
			out = append(out, read)
		}
	}
	if len(out) == 0 {
		return nil, nil //nolint:nilnil // an empty list is absent (RFC 7643 section 2.5)
	}
	out = newSet(a, out).values
	return onePrimary(out, len(out)), nil
}

// unwrapped returns the value in a list of one element, or in an object with nothing but a
// value, as Entra sends simple attributes: [{"value": "False"}].
func unwrapped(value any) any {
	if list, ok := value.([]any); ok && len(list) == 1 {
		value = list[0]
	}
	object, ok := value.(map[string]any)
	if !ok {
		return value
	}
	var inner any
	found := false
	for name, v := range object {
		switch {
		case strings.EqualFold(name, "value"):
			inner, found = v, true
		case v != nil:
			return value
		}
	}
	if !found {
		return value
	}
	return inner
}

func (rd Reader) single(a *schema.Attribute, value any) (any, error) {
	if value == nil {
		return nil, nil //nolint:nilnil // null is absent (RFC 7643 section 2.5)
	}
	switch a.Type {
	case schema.TypeComplex:
		return rd.complexValue(a, value)
	case schema.TypeBoolean:
		switch v := value.(type) {
		case bool:
			return v, nil
		case string: // Entra's "True" and "False"
			switch strings.ToLower(v) {
			case "true":
				return true, nil
			case "false":
				return false, nil
			}
		}
	case schema.TypeInteger, schema.TypeDecimal:
		if n, ok := value.(json.Number); ok && schema.IsNumber(n, a.Type) {
			return n, nil
		}
	case schema.TypeDateTime:
		if s, ok := value.(string); ok {
			if _, err := schema.ParseTime(s); err == nil {
				return s, nil
			}
		}
	case schema.TypeBinary:
		if s, ok := value.(string); ok && isBase64(s) {
			return s, nil
		}
	default:
		switch v := value.(type) {
		case string:
			if strings.ContainsRune(v, 0) {
				return nil, schema.Errorf(schema.InvalidValue, "%s must not contain the character U+0000", a.Name)
			}
			if isName(a) && strings.ContainsFunc(v, misleads) {
				return nil, schema.Errorf(schema.InvalidValue,
					"%s must not contain control or bidirectional formatting characters", a.Name)
			}
			return canonical(a, v)
		case json.Number: // an employeeNumber without its quotes
			if !rd.Strict {
				return canonical(a, v.String())
			}
		}
	}
	return nil, schema.Errorf(schema.InvalidValue, "%s must be of type %s", a.Name, a.Type)
}

// canonical returns the canonical value that equals value, or an error if none does. An
// attribute without canonical values accepts any value.
func canonical(a *schema.Attribute, value string) (any, error) {
	if len(a.CanonicalValues) == 0 || value == "" {
		return value, nil
	}
	for _, c := range a.CanonicalValues {
		if c == value || (!a.CaseExact && strings.EqualFold(c, value)) {
			return c, nil
		}
	}
	return nil, schema.Errorf(schema.InvalidValue, "%s must be one of %s, got %q",
		a.Name, schema.Clip(strings.Join(a.CanonicalValues, ", ")), schema.Clip(value))
}

func (rd Reader) complexValue(a *schema.Attribute, value any) (any, error) {
	members, ok := value.(map[string]any)
	if !ok {
		// A bare value means {"value": …}: Entra sends manager and members like this.
		if a.Sub("value") == nil {
			return nil, schema.Errorf(schema.InvalidValue, "%s must be an object", a.Name)
		}
		members = map[string]any{"value": value}
	}
	out := schema.Object{}
	for name, v := range members {
		if err := rd.member(out, a.SubAttributes, name, v); err != nil {
			return nil, err
		}
	}
	if a.Edge {
		return edgeTarget(a, out)
	}
	// Entra sends {"value": ""} to unassign an attribute.
	if v, has := out["value"]; has && v == "" {
		delete(out, "value")
	}
	if len(out) == 0 || (a.MultiValued && unassigns(members) && onlyLabels(out)) {
		return nil, nil //nolint:nilnil // an object without values is absent
	}
	return out, nil
}

// unassigns reports whether an element's value is given as null or "".
func unassigns(members map[string]any) bool {
	for name, v := range members {
		if strings.EqualFold(name, "value") {
			return v == nil || v == ""
		}
	}
	return false
}

// onlyLabels reports whether an element of a multi-valued attribute has only the
// sub-attributes that describe its value (RFC 7643 section 2.4).
func onlyLabels(element schema.Object) bool {
	for name := range element {
		switch name {
		case "type", "primary", "display", "$ref":
		default:
			return false
		}
	}
	return true
}

// edgeTarget returns the element of an edge, whose value is the id of a resource. Without
// a value it takes the id from $ref.
func edgeTarget(a *schema.Attribute, element schema.Object) (any, error) {
	id, _ := element["value"].(string)
	if ref, _ := element["$ref"].(string); id == "" && ref != "" {
		endpoint, last, ok := cutLast(strings.TrimSuffix(ref, "/"))
		if !ok || !slices.ContainsFunc(a.Sub("$ref").ReferenceTypes, func(t string) bool {
			return strings.HasSuffix("/"+endpoint, "/"+t+"s")
		}) {
			return nil, schema.Errorf(schema.InvalidValue, "%s.$ref must be the URL of a %s, got %q",
				a.Name, strings.Join(a.Sub("$ref").ReferenceTypes, ", "), schema.Clip(ref))
		}
		id = last
	}
	if id == "" {
		return nil, withoutValue(a)
	}
	return schema.Object{"value": id}, nil
}

// cutLast splits a URL before its last segment.
func cutLast(url string) (before, last string, ok bool) {
	i := strings.LastIndexByte(url, '/')
	if i < 0 {
		return "", "", false
	}
	return url[:i], url[i+1:], url[i+1:] != ""
}

func withoutValue(a *schema.Attribute) error {
	return schema.Errorf(schema.InvalidValue, "%s: each element must have a value, the id of a resource", a.Name)
}

// onePrimary leaves primary set on one element only: the last of the first n elements
// that has it (RFC 7643 section 2.4).
func onePrimary(list []any, n int) []any {
	keep := -1
	for i := range n {
		if object, ok := list[i].(schema.Object); ok && object["primary"] == true {
			keep = i
		}
	}
	for i, v := range list {
		if object, ok := v.(schema.Object); ok && object["primary"] == true && i != keep && keep >= 0 {
			object["primary"] = false
		}
	}
	return list
}
