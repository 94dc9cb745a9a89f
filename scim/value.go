package scim

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	// maxElements bounds a multi-valued attribute.
	maxElements = 1000
	// maxDocument bounds, in bytes, the stored document of a resource without its edges.
	// It keeps a page of the largest documents small.
	maxDocument = 128 << 10
	// maxName bounds, in bytes, the strings that are indexed.
	maxName = 1024
)

// Object is a resource or a complex value that conforms to its schema. Names are
// canonical, values are string, bool, json.Number, map[string]any or a list of
// those, and absent attributes have no key.
type Object = map[string]any

// reader converts a client's JSON into Objects according to the schema. A strict
// reader rejects unknown attributes; others ignore them.
type reader struct {
	strict bool
	// skipsMembers skips members that are not resources of the tenant instead of rejecting them.
	skipsMembers bool
}

// resource reads a whole resource, as sent by POST and PUT.
func (rd reader) resource(rt *ResourceType, raw map[string]any) (Object, error) {
	out := Object{}
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		value := raw[key]
		if strings.EqualFold(key, "schemas") {
			if err := rd.checkSchemas(rt, value); err != nil {
				return nil, err
			}
			continue
		}
		schema, rest := rt.splitURN(key)
		if rest == "" { // a bare URN: the extension's object, or the core's
			if err := rd.nested(out, rt, schema, value); err != nil {
				return nil, err
			}
			continue
		}
		if err := rd.topLevel(out, rt, schema, rest, value); err != nil {
			return nil, err
		}
	}
	return prune(out, rt), nil
}

// nested reads the object under a schema's URN.
func (rd reader) nested(out Object, rt *ResourceType, schema *Schema, value any) error {
	if value == nil {
		return nil
	}
	members, ok := value.(map[string]any)
	if !ok {
		return badRequest(invalidValue, "%s must be an object", schema.ID)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		v := members[name]
		if strings.EqualFold(name, "schemas") {
			continue // python-scim clients send schemas here
		}
		if err := rd.topLevel(out, rt, schema, name, v); err != nil {
			return err
		}
	}
	return nil
}

// topLevel reads an attribute of a schema.
func (rd reader) topLevel(out Object, rt *ResourceType, schema *Schema, name string, value any) error {
	if attribute(schema.Attributes, name) == nil {
		if err := misdirected(rt, name, value); err != nil {
			return err
		}
	}
	return rd.member(container(out, rt, schema), schema.Attributes, name, value)
}

// container returns the object that holds a schema's attributes: the resource itself, or
// the object under the extension's URN, which it creates if absent.
func container(out Object, rt *ResourceType, schema *Schema) Object {
	if schema == rt.Schema {
		return out
	}
	inner, ok := out[schema.ID].(Object)
	if !ok {
		inner = Object{}
		out[schema.ID] = inner
	}
	return inner
}

// prune removes empty extensions.
func prune(out Object, rt *ResourceType) Object {
	for _, extension := range rt.Extensions {
		if inner, ok := out[extension.ID].(Object); ok && len(inner) == 0 {
			delete(out, extension.ID)
		}
	}
	return out
}

func (rd reader) checkSchemas(rt *ResourceType, value any) error {
	if !rd.strict {
		return nil
	}
	list, _ := value.([]any)
	for _, v := range list {
		urn, _ := v.(string)
		if !strings.EqualFold(urn, rt.Schema.ID) && rt.extension(urn) == nil {
			return badRequest(invalidValue, "schemas: %q is not a schema of %s", urn, rt.Name)
		}
	}
	return nil
}

// member reads one attribute into out. It ignores read-only attributes, and an absent
// value leaves out unchanged.
func (rd reader) member(out Object, attributes []Attribute, name string, value any) error {
	a := attribute(attributes, name)
	if a == nil {
		if rd.strict && !isCommon(name) {
			return badRequest(invalidValue, "the schema has no attribute %q", name)
		}
		return nil
	}
	if a.Mutability == ReadOnly {
		return nil
	}
	if _, twice := out[a.Name]; twice {
		if a.alias != "" && strings.EqualFold(name, a.alias) {
			return nil // the attribute's own name takes precedence over its alias
		}
		return badRequest(invalidSyntax, "%s is given twice", a.Name)
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

// isCommon reports whether name is a common attribute (RFC 7643 section 3.1) that the server sets.
func isCommon(name string) bool {
	return strings.EqualFold(name, "id") || strings.EqualFold(name, "meta") || strings.EqualFold(name, "schemas")
}

// value coerces a value to the attribute's type; nil means absent.
func (rd reader) value(a *Attribute, value any) (any, error) {
	if !a.MultiValued {
		if list, ok := value.([]any); ok && a.Type == TypeComplex {
			// Entra sends a manager as a list of one.
			if len(list) == 0 {
				return nil, nil //nolint:nilnil // absent is a value here
			}
			value = list[0]
		}
		if a.Type != TypeComplex && !rd.strict {
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
	if !a.unbounded && len(list) > maxElements {
		return nil, badRequest(tooMany, "%s must have at most %d elements, got %d", a.Name, maxElements, len(list))
	}
	var out []any
	for _, v := range list {
		if v == nil && a.edge {
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

func (rd reader) single(a *Attribute, value any) (any, error) {
	if value == nil {
		return nil, nil //nolint:nilnil // null is absent (RFC 7643 section 2.5)
	}
	switch a.Type {
	case TypeComplex:
		return rd.complexValue(a, value)
	case TypeBoolean:
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
	case TypeInteger, TypeDecimal:
		if n, ok := value.(json.Number); ok && isNumber(n, a.Type) {
			return n, nil
		}
	case TypeDateTime:
		if s, ok := value.(string); ok {
			if _, err := parseTime(s); err == nil {
				return s, nil
			}
		}
	case TypeBinary:
		if s, ok := value.(string); ok && isBase64(s) {
			return s, nil
		}
	default:
		switch v := value.(type) {
		case string:
			if strings.ContainsRune(v, 0) {
				return nil, badRequest(invalidValue, "%s must not contain the character U+0000", a.Name)
			}
			if isName(a) && strings.ContainsFunc(v, misleads) {
				return nil, badRequest(invalidValue,
					"%s must not contain control or bidirectional formatting characters", a.Name)
			}
			return canonical(a, v)
		case json.Number: // an employeeNumber without its quotes
			if !rd.strict {
				return canonical(a, v.String())
			}
		}
	}
	return nil, badRequest(invalidValue, "%s must be of type %s", a.Name, a.Type)
}

// isName reports whether an attribute is shown as a name in lists, terminals and reports.
func isName(a *Attribute) bool {
	switch a.Name {
	case "userName", "agentUserName", "displayName", "nickName", "externalId",
		"familyName", "givenName", "middleName", "honorificPrefix", "honorificSuffix":
		return true
	}
	return false
}

// misleads reports whether a character moves the cursor or changes the direction of the
// text: C0 and C1 controls, line and paragraph separators, and the embeddings, overrides
// and isolates of Unicode's annex 9. Directional marks, which right-to-left names need, are
// not included.
func misleads(r rune) bool {
	return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 ||
		(r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
}

// canonical returns the canonical value that equals value, or an error if none does. An
// attribute without canonical values accepts any value.
func canonical(a *Attribute, value string) (any, error) {
	if len(a.CanonicalValues) == 0 || value == "" {
		return value, nil
	}
	for _, c := range a.CanonicalValues {
		if c == value || (!a.CaseExact && strings.EqualFold(c, value)) {
			return c, nil
		}
	}
	return nil, badRequest(invalidValue, "%s must be one of %s, got %q",
		a.Name, clip(strings.Join(a.CanonicalValues, ", ")), clip(value))
}

// maxNumber bounds the text of a number, in bytes, because PostgreSQL parses it for comparisons.
const maxNumber = 64

func isNumber(n json.Number, t Type) bool {
	if len(n) > maxNumber || (t == TypeInteger && strings.ContainsAny(n.String(), ".eE")) {
		return false
	}
	// PostgreSQL rejects numbers that underflow; Go rounds them to zero.
	f, err := n.Float64()
	mantissa, _, _ := strings.Cut(strings.ToLower(n.String()), "e")
	return err == nil && (f != 0 || !strings.ContainsAny(mantissa, "123456789"))
}

// parseTime parses a dateTime (RFC 7643 section 2.3.5) that PostgreSQL also accepts.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, err
	}
	if len(s) > maxTime {
		return t, fmt.Errorf("dateTime must be at most %d bytes, got %d", maxTime, len(s))
	}
	if year := t.UTC().Year(); year < 1 || year > 9999 {
		return t, errors.New("dateTime must be in the years 1 to 9999 UTC")
	}
	if _, offset := t.Zone(); t.Year() < 1 || offset <= -maxOffset || offset >= maxOffset {
		return t, fmt.Errorf("dateTime is out of range: %s", t)
	}
	// time.Parse accepts a comma and offset minutes over 59; XML Schema and PostgreSQL do not.
	if strings.Contains(s, ",") || (!strings.HasSuffix(s, "Z") && s[len(s)-2:] > "59") {
		return t, fmt.Errorf("invalid xsd:dateTime %q", s)
	}
	return t, nil
}

const (
	maxTime   = 40           // bytes
	maxOffset = 15 * 60 * 60 // seconds
)

// isBase64 reports whether s is base64 or base64url (RFC 7643 section 2.3.6), with or without padding.
func isBase64(s string) bool {
	s = strings.TrimRight(s, "=")
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if _, err := encoding.DecodeString(s); err == nil {
			return true
		}
	}
	return false
}

func (rd reader) complexValue(a *Attribute, value any) (any, error) {
	members, ok := value.(map[string]any)
	if !ok {
		// A bare value means {"value": …}: Entra sends manager and members like this.
		if a.sub("value") == nil {
			return nil, badRequest(invalidValue, "%s must be an object", a.Name)
		}
		members = map[string]any{"value": value}
	}
	out := Object{}
	for name, v := range members {
		if err := rd.member(out, a.SubAttributes, name, v); err != nil {
			return nil, err
		}
	}
	if a.edge {
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
func onlyLabels(element Object) bool {
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
func edgeTarget(a *Attribute, element Object) (any, error) {
	id, _ := element["value"].(string)
	if ref, _ := element["$ref"].(string); id == "" && ref != "" {
		endpoint, last, ok := cutLast(strings.TrimSuffix(ref, "/"))
		if !ok || !slices.ContainsFunc(a.sub("$ref").ReferenceTypes, func(t string) bool {
			return strings.HasSuffix("/"+endpoint, "/"+t+"s")
		}) {
			return nil, badRequest(invalidValue, "%s.$ref must be the URL of a %s, got %q",
				a.Name, strings.Join(a.sub("$ref").ReferenceTypes, ", "), clip(ref))
		}
		id = last
	}
	if id == "" {
		return nil, withoutValue(a)
	}
	return Object{"value": id}, nil
}

// cutLast splits a URL before its last segment.
func cutLast(url string) (before, last string, ok bool) {
	i := strings.LastIndexByte(url, '/')
	if i < 0 {
		return "", "", false
	}
	return url[:i], url[i+1:], url[i+1:] != ""
}

func withoutValue(a *Attribute) error {
	return badRequest(invalidValue, "%s: each element must have a value, the id of a resource", a.Name)
}

// onePrimary leaves primary set on one element only: the last of the first n elements
// that has it (RFC 7643 section 2.4).
func onePrimary(list []any, n int) []any {
	keep := -1
	for i := range n {
		if object, ok := list[i].(Object); ok && object["primary"] == true {
			keep = i
		}
	}
	for i, v := range list {
		if object, ok := v.(Object); ok && object["primary"] == true && i != keep && keep >= 0 {
			object["primary"] = false
		}
	}
	return list
}

// checkRequired returns an error if a required attribute is missing. Attributes of an
// extension are required only if the resource has the extension.
func checkRequired(rt *ResourceType, o Object) error {
	for _, schema := range rt.schemas() {
		members := o
		if schema != rt.Schema {
			inner, ok := o[schema.ID].(Object)
			if !ok {
				continue
			}
			members = inner
		}
		if err := requireAll(schema.Attributes, members, ""); err != nil {
			return err
		}
	}
	return nil
}

func requireAll(attributes []Attribute, o Object, prefix string) error {
	for i := range attributes {
		a := &attributes[i]
		value := o[a.Name]
		if a.Required && a.Mutability != ReadOnly && !a.unbounded {
			if s, isString := value.(string); value == nil || (isString && strings.TrimSpace(s) == "") {
				return badRequest(invalidValue, "%s%s is required", prefix, a.Name)
			}
		}
		for _, element := range listOf(value) {
			if inner, ok := element.(Object); ok && a.Type == TypeComplex && !a.edge {
				if err := requireAll(a.SubAttributes, inner, prefix+a.Name+"."); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// listOf returns the elements of a list, or any other value as a list of one; nil has none.
func listOf(value any) []any {
	switch v := value.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{value}
}

// settle copies values from before to after that the client cannot have meant to remove:
// immutable ones (RFC 7644 section 3.5.1) and, for a PUT, those that are not returned by
// default. It returns an error if an immutable value was changed.
func settle(rt *ResourceType, before, after Object, replaced bool) error {
	for _, schema := range rt.schemas() {
		had, has := before, after
		if schema != rt.Schema {
			had, _ = before[schema.ID].(Object)
			has, _ = after[schema.ID].(Object)
			if had == nil {
				continue
			}
			if has == nil {
				has = Object{}
				after[schema.ID] = has
			}
		}
		if err := settleAll(schema.Attributes, had, has, replaced); err != nil {
			return err
		}
	}
	prune(after, rt)
	return nil
}

func settleAll(attributes []Attribute, had, has Object, replaced bool) error {
	for i := range attributes {
		a := &attributes[i]
		was, now := had[a.Name], has[a.Name]
		if was == nil || a.edge {
			continue
		}
		if now == nil && replaced && (a.concealed() || keepsSomething(a, was)) {
			has[a.Name] = was
			continue
		}
		if a.Mutability == Immutable {
			if !equalValues(a, was, now) {
				return badRequest(mutability, "%s is immutable and already has a value", a.Name)
			}
			has[a.Name] = was
		}
		inner, ok := was.(Object)
		if a.Type != TypeComplex || a.MultiValued || !ok {
			continue
		}
		after, ok := now.(Object)
		if !ok {
			after = Object{}
		}
		if err := settleAll(a.SubAttributes, inner, after, replaced); err != nil {
			return err
		}
		if len(after) > 0 {
			has[a.Name] = after
		}
	}
	return nil
}

// keepsSomething reports whether a value, or a part of it, is immutable.
func keepsSomething(a *Attribute, value any) bool {
	if a.Mutability == Immutable {
		return true
	}
	members, ok := value.(Object)
	return ok && slices.ContainsFunc(a.SubAttributes, func(sub Attribute) bool {
		return members[sub.Name] != nil && keepsSomething(&sub, members[sub.Name])
	})
}

// equalValues reports whether two values are equal, without regard to case unless caseExact.
func equalValues(a *Attribute, x, y any) bool {
	if s, ok := x.(string); ok && !a.CaseExact {
		t, ok := y.(string)
		return ok && strings.EqualFold(s, t)
	}
	return reflect.DeepEqual(x, y)
}

// clone returns a deep copy of a value, so that a failed PATCH does not change the original.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, inner := range v {
			out[key] = clone(inner)
		}
		return out
	case []any:
		out := slices.Clone(v)
		for i := range out {
			out[i] = clone(out[i])
		}
		return out
	}
	return v
}
