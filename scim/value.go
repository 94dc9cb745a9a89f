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
	// maxDocument bounds, in bytes, what is stored of a resource beside its edges:
	// a page of the largest is still no burden.
	maxDocument = 128 << 10
	// maxName bounds, in bytes, the strings that are indexed.
	maxName = 1024
)

// Object is a resource, or a complex value, that has met its schema: names are
// canonical, values are string, bool, json.Number, Object's map or a list of
// those, and what is absent is not there.
type Object = map[string]any

// reader turns JSON that a client sent into Objects by the schema. A strict
// one refuses what the schema does not know; others ignore it.
type reader struct {
	strict bool
	// skipsMembers: a member that is no resource of the tenant is skipped, and not refused.
	skipsMembers bool
}

// resource reads a whole resource, as POST and PUT carry it.
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
		return badRequest(invalidValue, "%s: want an object", schema.ID)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		v := members[name]
		if strings.EqualFold(name, "schemas") {
			continue // python-scim clients put it there
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

// container is where a schema's attributes stand: the resource itself, or the
// object under the extension's URN, which is made.
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

// prune drops extensions that hold nothing.
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

// member reads one attribute into out. Read-only ones are ignored, whatever
// they hold; what is read as absent removes nothing here.
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
			return nil // the attribute's own name comes before its alias
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

// isCommon: the common attributes (RFC 7643 section 3.1) that the server sets.
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
		return nil, badRequest(tooMany, "%s has more than %d elements", a.Name, maxElements)
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
				return nil, badRequest(invalidValue, "%s: a string holds the character U+0000", a.Name)
			}
			if isName(a) && strings.ContainsFunc(v, misleads) {
				return nil, badRequest(invalidValue, "%s must not contain control or bidirectional formatting characters", a.Name)
			}
			return canonical(a, v)
		case json.Number: // an employeeNumber without its quotes
			if !rd.strict {
				return canonical(a, v.String())
			}
		}
	}
	return nil, badRequest(invalidValue, "%s: the value is not a %s", a.Name, a.Type)
}

// isName reports whether people read an attribute as somebody's or something's name, in
// lists, terminals and reports.
func isName(a *Attribute) bool {
	switch a.Name {
	case "userName", "agentUserName", "displayName", "nickName", "externalId",
		"familyName", "givenName", "middleName", "honorificPrefix", "honorificSuffix":
		return true
	}
	return false
}

// misleads reports whether a character moves a reader's cursor or turns the direction of
// the text: C0 and C1 controls, line and paragraph separators, and the embeddings,
// overrides and isolates of Unicode's annex 9. The marks that right-to-left names need are
// not among them.
func misleads(r rune) bool {
	return unicode.IsControl(r) || r == 0x2028 || r == 0x2029 || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
}

// canonical writes a value as the schema's canonical values do; another is
// refused. A schema without any takes whatever comes.
func canonical(a *Attribute, value string) (any, error) {
	if len(a.CanonicalValues) == 0 || value == "" {
		return value, nil
	}
	for _, c := range a.CanonicalValues {
		if c == value || (!a.CaseExact && strings.EqualFold(c, value)) {
			return c, nil
		}
	}
	return nil, badRequest(invalidValue, "%s: want one of %s", a.Name, clip(strings.Join(a.CanonicalValues, ", ")))
}

// maxNumber bounds, in bytes, how a number is written: PostgreSQL compares it.
const maxNumber = 64

func isNumber(n json.Number, t Type) bool {
	if len(n) > maxNumber || (t == TypeInteger && strings.ContainsAny(n.String(), ".eE")) {
		return false
	}
	// What Go rounds to zero PostgreSQL does not take.
	f, err := n.Float64()
	mantissa, _, _ := strings.Cut(strings.ToLower(n.String()), "e")
	return err == nil && (f != 0 || !strings.ContainsAny(mantissa, "123456789"))
}

// parseTime reads a dateTime (RFC 7643 section 2.3.5) that PostgreSQL reads too.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, err
	}
	if len(s) > maxTime {
		return t, errors.New("the date has too many digits")
	}
	if year := t.UTC().Year(); year < 1 || year > 9999 {
		return t, errors.New("the date is out of range")
	}
	if _, offset := t.Zone(); t.Year() < 1 || offset <= -maxOffset || offset >= maxOffset {
		return t, fmt.Errorf("the date %s is out of range", t)
	}
	// Go reads what neither XML Schema nor PostgreSQL does.
	if strings.Contains(s, ",") || (!strings.HasSuffix(s, "Z") && s[len(s)-2:] > "59") {
		return t, errors.New("the date is not as XML Schema has it")
	}
	return t, nil
}

const (
	maxTime   = 40           // bytes
	maxOffset = 15 * 60 * 60 // seconds
)

// isBase64 takes what RFC 7643 section 2.3.6 allows, with or without padding.
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
		// A bare value stands for {value: …}: Entra's manager and members.
		if a.sub("value") == nil {
			return nil, badRequest(invalidValue, "%s: want an object", a.Name)
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
	// {"value": ""} is how Entra says that there is none.
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

// onlyLabels reports whether an element of a multi-valued attribute holds nothing but what
// describes its value (RFC 7643 section 2.4).
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

// edgeTarget returns the element of an edge, whose value is the id of a resource. A $ref
// stands for the value where there is none.
func edgeTarget(a *Attribute, element Object) (any, error) {
	id, _ := element["value"].(string)
	if ref, _ := element["$ref"].(string); id == "" && ref != "" {
		endpoint, last, ok := cutLast(strings.TrimSuffix(ref, "/"))
		if !ok || !slices.ContainsFunc(a.sub("$ref").ReferenceTypes, func(t string) bool { return strings.HasSuffix("/"+endpoint, "/"+t+"s") }) {
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
	return badRequest(invalidValue, "%s: each element needs a value, the id of the resource", a.Name)
}

// onePrimary keeps primary on one element only: on the last that has it among
// the first n, which is where new ones stand (RFC 7643 section 2.4).
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

// checkRequired refuses a resource that lacks a required attribute. An
// extension's are required only of who has the extension.
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

// listOf is a value's elements: those of a list, or the value itself.
func listOf(value any) []any {
	switch v := value.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{value}
}

// settle makes an edited resource keep to what is there: what was immutable is
// as it was (RFC 7644 section 3.5.1), and what an answer does not hold by
// default a PUT cannot have meant to remove.
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
				return badRequest(mutability, "%s is immutable: it has a value", a.Name)
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

// keepsSomething tells whether a value is immutable, or a part of it.
func keepsSomething(a *Attribute, value any) bool {
	if a.Mutability == Immutable {
		return true
	}
	members, ok := value.(Object)
	return ok && slices.ContainsFunc(a.SubAttributes, func(sub Attribute) bool {
		return members[sub.Name] != nil && keepsSomething(&sub, members[sub.Name])
	})
}

// equalValues compares as the schema does.
func equalValues(a *Attribute, x, y any) bool {
	if s, ok := x.(string); ok && !a.CaseExact {
		t, ok := y.(string)
		return ok && strings.EqualFold(s, t)
	}
	return reflect.DeepEqual(x, y)
}

// clone copies a value deeply, so that a failed PATCH leaves the original whole.
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
