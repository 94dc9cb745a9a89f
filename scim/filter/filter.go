// Package filter parses SCIM filters (RFC 7644 section 3.4.2.2) into conditions on attributes, and
// evaluates them in memory.
package filter

import (
	"encoding/json"
	"fmt"
	"strings"

	filter "github.com/scim2/filter-parser/v2"

	"github.com/leaverhq/leaver/scim/schema"
)

// Parse parses a filter (RFC 7644 section 3.4.2.2) and resolves its names
// against the resource type's schemas.
func Parse(rt *schema.ResourceType, text string) (Condition, error) {
	tokens, err := ScanFilter(text)
	if err != nil {
		return nil, err
	}
	return Resolver{Rt: rt}.Parse(tokens)
}

// Parse converts tokens into a condition. It parses value filters separately: the library
// supports neither grouping in them nor a sub-attribute after them.
func (rs Resolver) Parse(tokens []Token) (Condition, error) {
	if e, ok := parseConjunction(tokens); ok {
		return rs.condition(e)
	}
	outer, brackets, err := liftBrackets(tokens)
	if err != nil {
		return nil, err
	}
	expression, err := filter.ParseFilterNumber([]byte(normalize(outer)))
	if err != nil {
		return nil, schema.Errorf(schema.InvalidFilter, "invalid filter (RFC 7644 section 3.4.2.2)")
	}
	rs.brackets = brackets
	return rs.condition(expression)
}

// parseConjunction is a fast path for the most common filters of Okta and Entra:
// `a eq "x"` and `a eq "x" and b eq "y"`. The grammar takes a hundred times longer.
func parseConjunction(tokens []Token) (filter.Expression, bool) {
	var all filter.Expression
	for len(tokens) >= 3 {
		name, op, value := tokens[0], tokens[1], tokens[2]
		if !name.isWord() || !op.isOperator() || !value.isString() || name.is("not") {
			return nil, false
		}
		path, ok := SimplePath(string(name))
		if !ok {
			return nil, false
		}
		var e filter.Expression = &filter.AttributeExpression{
			AttributePath: path, Operator: filter.CompareOperator(strings.ToLower(string(op))),
			CompareValue: string(value[1 : len(value)-1]),
		}
		if all != nil {
			e = &filter.LogicalExpression{Left: all, Right: e, Operator: filter.AND}
		}
		all = e
		switch tokens = tokens[3:]; {
		case len(tokens) == 0:
			return all, true
		case !tokens[0].is("and"):
			return nil, false
		}
		tokens = tokens[1:]
	}
	return nil, false
}

// SimplePath parses a name, or a name and a sub-name, without a URN.
func SimplePath(name string) (filter.AttributePath, bool) {
	for i := range len(name) {
		c := name[i] | 0x20
		if (c < 'a' || c > 'z') &&
			(i == 0 || (name[i] != '.' && name[i] != '_' && name[i] != '-' && (name[i] < '0' || name[i] > '9'))) {
			return filter.AttributePath{}, false
		}
	}
	head, sub, dotted := strings.Cut(name, ".")
	if !dotted {
		return filter.AttributePath{AttributeName: head}, true
	}
	return filter.AttributePath{AttributeName: head, SubAttribute: &sub}, sub != "" && !strings.Contains(sub, ".")
}

// Resolver converts expressions into conditions. Inside a value filter, names are
// sub-attributes of element.
type Resolver struct {
	Rt       *schema.ResourceType
	Element  *schema.Attribute
	brackets map[string]Bracket // by placeholder name
}

func (rs Resolver) condition(e filter.Expression) (Condition, error) {
	switch e := e.(type) {
	case *filter.LogicalExpression:
		left, err := rs.condition(e.Left)
		if err != nil {
			return nil, err
		}
		right, err := rs.condition(e.Right)
		if err != nil {
			return nil, err
		}
		if e.Operator == filter.OR {
			return Or{Left: left, Right: right}, nil
		}
		return And{Left: left, Right: right}, nil
	case *filter.NotExpression:
		inner, err := rs.condition(e.Expression)
		return Not{Inner: inner}, err
	case *filter.AttributeExpression:
		return rs.comparison(e)
	}
	return nil, schema.Errorf(schema.InvalidFilter, "invalid filter (RFC 7644 section 3.4.2.2)")
}

// bracket resolves a value filter on a multi-valued attribute. One element must match both
// the filter and the comparison after it.
func (rs Resolver) bracket(b Bracket) (Condition, error) {
	if rs.Element != nil {
		return nil, schema.Errorf(schema.InvalidFilter, "a value filter must not contain another")
	}
	within, rest := rs.Rt.SplitURN(string(b.attribute))
	path, ok := SimplePath(rest)
	if !ok {
		return nil, schema.Errorf(schema.InvalidFilter, "filter: %s has no attribute %q", rs.Rt.Name,
			schema.Clip(string(b.attribute)))
	}
	if within != rs.Rt.Schema {
		prefix := within.ID + ":"
		path.URIPrefix = &prefix
	}
	field, a, err := rs.field(path)
	if err != nil {
		return nil, err
	}
	if !field.Multi || a.Type != schema.TypeComplex || path.SubAttribute != nil {
		return nil, schema.Errorf(schema.InvalidFilter,
			"%s is not a multi-valued complex attribute: a value filter is not supported", path.AttributeName)
	}
	inside := Resolver{Rt: rs.Rt, Element: a}
	where, err := inside.Parse(b.Inner)
	if err != nil {
		return nil, err
	}
	if len(b.behind) > 0 {
		also, err := inside.Parse(b.behind)
		if err != nil {
			return nil, err
		}
		where = And{Left: where, Right: also}
	}
	field.Sub = ""
	return Element{Field: field, Where: where}, nil
}

func (rs Resolver) comparison(e *filter.AttributeExpression) (Condition, error) {
	if b, ok := rs.brackets[e.AttributePath.String()]; ok {
		return rs.bracket(b)
	}
	field, a, err := rs.field(e.AttributePath)
	if err != nil {
		return nil, err
	}
	op := Op(strings.ToLower(string(e.Operator)))
	if op == Pr {
		return Compare{Field: field, Op: op}, nil
	}
	value, err := filterValue(field, a, e.CompareValue)
	if err != nil {
		return nil, err
	}
	c := Compare{Field: field, Op: op, Value: value}
	if field.Kind == Complex ||
		(field.Kind == Boolean && op != Eq && op != Ne) {
		return nil, schema.Errorf(schema.InvalidFilter, "filter: %s does not support the operator %s", a.Name, op)
	}
	return c, nil
}

// field resolves a path. It rejects attributes that are never returned, because a filter
// could reveal their values bit by bit.
func (rs Resolver) field(path filter.AttributePath) (Field, *schema.Attribute, error) {
	name := path.AttributeName
	if uri := path.URI(); uri != "" {
		name = uri + ":" + name
	}
	unknown := schema.Errorf(schema.InvalidFilter, "filter: %s has no filterable attribute %q", rs.Rt.Name, path.String())
	if rs.Element != nil {
		a := rs.Element.Sub(name)
		if a == nil || path.SubAttribute != nil || a.Returned == schema.Never {
			return Field{}, nil, unknown
		}
		return Field{Path: []string{a.Name}, Kind: kindOf(a), CaseExact: a.CaseExact}, a, nil
	}
	if field, a := rs.commonField(path); a != nil {
		return field, a, nil
	}
	within, a := rs.Rt.Find(name)
	if a == nil || a.Returned == schema.Never {
		return Field{}, nil, unknown
	}
	field := Field{
		Path: []string{a.Name}, Multi: a.MultiValued, Kind: kindOf(a), CaseExact: a.CaseExact,
		Place: rs.place(within, a),
	}
	if within != rs.Rt.Schema {
		field.Path = []string{within.ID, a.Name}
	}
	return rs.subField(field, a, path.SubAttribute, unknown)
}

// subField resolves the sub-attribute after the dot; without one, `value` is implied.
func (rs Resolver) subField(
	field Field, a *schema.Attribute, name *string, unknown error,
) (Field, *schema.Attribute, error) {
	sub := a.Sub("value")
	if name != nil {
		if sub = a.Sub(*name); sub == nil {
			return Field{}, nil, unknown
		}
	}
	if sub == nil {
		return field, a, nil
	}
	if sub.Returned == schema.Never {
		return Field{}, nil, unknown
	}
	field.Kind, field.CaseExact = kindOf(sub), sub.CaseExact
	if field.Multi || field.Place == InEdges || field.Place == InGroups {
		field.Sub, field.Multi = sub.Name, true
	} else {
		field.Path = append(field.Path, sub.Name)
	}
	if field.Multi && name == nil {
		return field, a, nil
	}
	return field, sub, nil
}

func (rs Resolver) place(within *schema.Schema, a *schema.Attribute) Place {
	switch {
	case a.Edge:
		return InEdges
	case within.ID == schema.LifecycleURN:
		return InRestriction
	case within != rs.Rt.Schema:
		return InDocument
	case a.Name == "groups":
		return InGroups
	case a.Name == rs.Rt.Unique:
		return InUniqueName
	case a.Name == "externalId":
		return InExternalID
	case a.Name == "displayName" && rs.Rt.Unique == "":
		return InDisplayName
	case a.Name == "active":
		return InActive
	}
	return InDocument
}

// commonField resolves id, schemas and meta, which belong to no schema.
func (rs Resolver) commonField(path filter.AttributePath) (Field, *schema.Attribute) {
	id := schema.Exact(schema.Text("id", ""))
	sub := strings.ToLower(path.SubAttributeName())
	switch strings.ToLower(path.AttributeName) + "." + sub {
	case "id.":
		return Field{Path: []string{"id"}, CaseExact: true, Place: InID}, &id
	case "schemas.":
		schemas := schema.Many(schema.Exact(schema.Text("schemas", "")))
		return Field{
			Path: []string{"schemas"}, Multi: true, CaseExact: true, Place: InSchemas,
			CoreURN: rs.Rt.Schema.ID, RestrictionURN: schema.LifecycleURN,
		}, &schemas
	case "meta.resourcetype":
		kind := schema.Exact(schema.Text("meta.resourceType", ""))
		return Field{Path: []string{"meta", "resourceType"}, CaseExact: true, Place: InType}, &kind
	case "meta.version":
		version := schema.Exact(schema.Text("meta.version", ""))
		return Field{Path: []string{"meta", "version"}, CaseExact: true, Place: InVersion}, &version
	case "meta.created", "meta.lastmodified":
		at := schema.Attribute{Name: "meta." + sub, Type: schema.TypeDateTime}
		field := Field{Path: []string{"meta", "created"}, Kind: Time, Place: InCreated}
		if sub == "lastmodified" {
			field.Path[1], field.Place = "lastModified", InModified
		}
		return field, &at
	}
	return Field{}, nil
}

func kindOf(a *schema.Attribute) Kind {
	switch a.Type {
	case schema.TypeBoolean:
		return Boolean
	case schema.TypeInteger, schema.TypeDecimal:
		return Number
	case schema.TypeDateTime:
		return Time
	case schema.TypeComplex:
		return Complex
	default:
		return String
	}
}

// filterValue coerces a filter's value to the field's type; nil is null.
func filterValue(field Field, a *schema.Attribute, value any) (any, error) {
	if s, ok := value.(string); ok {
		// The parser does not decode JSON escapes.
		if err := json.Unmarshal([]byte(`"`+s+`"`), &s); err != nil {
			return nil, schema.Errorf(schema.InvalidFilter, "filter: the string compared with %s is not valid JSON", a.Name)
		}
		if strings.ContainsRune(s, 0) {
			return nil, schema.Errorf(schema.InvalidFilter,
				"filter: the string compared with %s must not contain U+0000", a.Name)
		}
		value = s
	}
	mismatch := schema.Errorf(schema.InvalidFilter, "filter: the value compared with %s has the wrong type", a.Name)
	switch v := value.(type) {
	case nil:
		return nil, nil //nolint:nilnil // null is a value here
	case bool:
		if field.Kind == Boolean {
			return v, nil
		}
		if field.Kind == String { // an unquoted true or false
			return fmt.Sprint(v), nil
		}
	case json.Number:
		if field.Kind == Number && schema.IsNumber(v, schema.TypeDecimal) {
			return v, nil
		}
		if field.Kind == String {
			return v.String(), nil
		}
	case string:
		switch field.Kind {
		case String:
			return v, nil
		case Boolean:
			if strings.EqualFold(v, "true") || strings.EqualFold(v, "false") {
				return strings.EqualFold(v, "true"), nil
			}
		case Time:
			if at, err := schema.ParseTime(v); err == nil {
				return at, nil
			}
		default:
		}
	}
	return nil, mismatch
}
