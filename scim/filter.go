package scim

import (
	"encoding/json"
	"fmt"
	"strings"

	filter "github.com/scim2/filter-parser/v2"

	"github.com/leaverhq/leaver/internal/directory"
)

// parseFilter parses a filter (RFC 7644 section 3.4.2.2) and resolves its names
// against the resource type's schemas.
func parseFilter(rt *ResourceType, text string) (directory.Condition, error) {
	tokens, err := scanFilter(text)
	if err != nil {
		return nil, err
	}
	return resolver{rt: rt}.parse(tokens)
}

// parse converts tokens into a condition. It parses value filters separately: the library
// supports neither grouping in them nor a sub-attribute after them.
func (rs resolver) parse(tokens []token) (directory.Condition, error) {
	if e, ok := parseConjunction(tokens); ok {
		return rs.condition(e)
	}
	outer, brackets, err := liftBrackets(tokens)
	if err != nil {
		return nil, err
	}
	expression, err := filter.ParseFilterNumber([]byte(normalize(outer)))
	if err != nil {
		return nil, violationf(invalidFilter, "invalid filter (RFC 7644 section 3.4.2.2)")
	}
	rs.brackets = brackets
	return rs.condition(expression)
}

// parseConjunction is a fast path for the most common filters of Okta and Entra:
// `a eq "x"` and `a eq "x" and b eq "y"`. The grammar takes a hundred times longer.
func parseConjunction(tokens []token) (filter.Expression, bool) {
	var all filter.Expression
	for len(tokens) >= 3 {
		name, op, value := tokens[0], tokens[1], tokens[2]
		if !name.isWord() || !op.isOperator() || !value.isString() || name.is("not") {
			return nil, false
		}
		path, ok := simplePath(string(name))
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

// simplePath parses a name, or a name and a sub-name, without a URN.
func simplePath(name string) (filter.AttributePath, bool) {
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

// resolver converts expressions into conditions. Inside a value filter, names are
// sub-attributes of element.
type resolver struct {
	rt       *ResourceType
	element  *Attribute
	brackets map[string]bracket // by placeholder name
}

func (rs resolver) condition(e filter.Expression) (directory.Condition, error) {
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
			return directory.Or{Left: left, Right: right}, nil
		}
		return directory.And{Left: left, Right: right}, nil
	case *filter.NotExpression:
		inner, err := rs.condition(e.Expression)
		return directory.Not{Inner: inner}, err
	case *filter.AttributeExpression:
		return rs.comparison(e)
	}
	return nil, violationf(invalidFilter, "invalid filter (RFC 7644 section 3.4.2.2)")
}

// bracket resolves a value filter on a multi-valued attribute. One element must match both
// the filter and the comparison after it.
func (rs resolver) bracket(b bracket) (directory.Condition, error) {
	if rs.element != nil {
		return nil, violationf(invalidFilter, "a value filter must not contain another")
	}
	within, rest := rs.rt.splitURN(string(b.attribute))
	path, ok := simplePath(rest)
	if !ok {
		return nil, violationf(invalidFilter, "filter: %s has no attribute %q", rs.rt.Name, clip(string(b.attribute)))
	}
	if within != rs.rt.Schema {
		prefix := within.ID + ":"
		path.URIPrefix = &prefix
	}
	field, a, err := rs.field(path)
	if err != nil {
		return nil, err
	}
	if !field.Multi || a.Type != TypeComplex || path.SubAttribute != nil {
		return nil, violationf(invalidFilter,
			"%s is not a multi-valued complex attribute: a value filter is not supported", path.AttributeName)
	}
	inside := resolver{rt: rs.rt, element: a}
	where, err := inside.parse(b.inner)
	if err != nil {
		return nil, err
	}
	if len(b.behind) > 0 {
		also, err := inside.parse(b.behind)
		if err != nil {
			return nil, err
		}
		where = directory.And{Left: where, Right: also}
	}
	field.Sub = ""
	return directory.Element{Field: field, Where: where}, nil
}

func (rs resolver) comparison(e *filter.AttributeExpression) (directory.Condition, error) {
	if b, ok := rs.brackets[e.AttributePath.String()]; ok {
		return rs.bracket(b)
	}
	field, a, err := rs.field(e.AttributePath)
	if err != nil {
		return nil, err
	}
	op := directory.Op(strings.ToLower(string(e.Operator)))
	if op == directory.Pr {
		return directory.Compare{Field: field, Op: op}, nil
	}
	value, err := filterValue(field, a, e.CompareValue)
	if err != nil {
		return nil, err
	}
	c := directory.Compare{Field: field, Op: op, Value: value}
	if field.Kind == directory.Complex ||
		(field.Kind == directory.Boolean && op != directory.Eq && op != directory.Ne) {
		return nil, violationf(invalidFilter, "filter: %s does not support the operator %s", a.Name, op)
	}
	return c, nil
}

// field resolves a path. It rejects attributes that are never returned, because a filter
// could reveal their values bit by bit.
func (rs resolver) field(path filter.AttributePath) (directory.Field, *Attribute, error) {
	name := path.AttributeName
	if uri := path.URI(); uri != "" {
		name = uri + ":" + name
	}
	unknown := violationf(invalidFilter, "filter: %s has no filterable attribute %q", rs.rt.Name, path.String())
	if rs.element != nil {
		a := rs.element.sub(name)
		if a == nil || path.SubAttribute != nil || a.Returned == Never {
			return directory.Field{}, nil, unknown
		}
		return directory.Field{Path: []string{a.Name}, Kind: kindOf(a), CaseExact: a.CaseExact}, a, nil
	}
	if field, a := rs.commonField(path); a != nil {
		return field, a, nil
	}
	within, a := rs.rt.find(name)
	if a == nil || a.Returned == Never {
		return directory.Field{}, nil, unknown
	}
	field := directory.Field{
		Path: []string{a.Name}, Multi: a.MultiValued, Kind: kindOf(a), CaseExact: a.CaseExact,
		Place: rs.place(within, a),
	}
	if within != rs.rt.Schema {
		field.Path = []string{within.ID, a.Name}
	}
	return rs.subField(field, a, path.SubAttribute, unknown)
}

// subField resolves the sub-attribute after the dot; without one, `value` is implied.
func (rs resolver) subField(
	field directory.Field, a *Attribute, name *string, unknown error,
) (directory.Field, *Attribute, error) {
	sub := a.sub("value")
	if name != nil {
		if sub = a.sub(*name); sub == nil {
			return directory.Field{}, nil, unknown
		}
	}
	if sub == nil {
		return field, a, nil
	}
	if sub.Returned == Never {
		return directory.Field{}, nil, unknown
	}
	field.Kind, field.CaseExact = kindOf(sub), sub.CaseExact
	if field.Multi || field.Place == directory.InEdges || field.Place == directory.InGroups {
		field.Sub, field.Multi = sub.Name, true
	} else {
		field.Path = append(field.Path, sub.Name)
	}
	if field.Multi && name == nil {
		return field, a, nil
	}
	return field, sub, nil
}

func (rs resolver) place(within *Schema, a *Attribute) directory.Place {
	switch {
	case a.edge:
		return directory.InEdges
	case within.ID == LifecycleURN:
		return directory.InRestriction
	case within != rs.rt.Schema:
		return directory.InDocument
	case a.Name == "groups":
		return directory.InGroups
	case a.Name == rs.rt.unique:
		return directory.InUniqueName
	case a.Name == "externalId":
		return directory.InExternalID
	case a.Name == "displayName" && rs.rt.unique == "":
		return directory.InDisplayName
	case a.Name == "active":
		return directory.InActive
	}
	return directory.InDocument
}

// commonField resolves id, schemas and meta, which belong to no schema.
func (rs resolver) commonField(path filter.AttributePath) (directory.Field, *Attribute) {
	id := exact(text("id", ""))
	sub := strings.ToLower(path.SubAttributeName())
	switch strings.ToLower(path.AttributeName) + "." + sub {
	case "id.":
		return directory.Field{Path: []string{"id"}, CaseExact: true, Place: directory.InID}, &id
	case "schemas.":
		schemas := many(exact(text("schemas", "")))
		return directory.Field{
			Path: []string{"schemas"}, Multi: true, CaseExact: true, Place: directory.InSchemas,
			CoreURN: rs.rt.Schema.ID, RestrictionURN: LifecycleURN,
		}, &schemas
	case "meta.resourcetype":
		kind := exact(text("meta.resourceType", ""))
		return directory.Field{Path: []string{"meta", "resourceType"}, CaseExact: true, Place: directory.InType}, &kind
	case "meta.version":
		version := exact(text("meta.version", ""))
		return directory.Field{Path: []string{"meta", "version"}, CaseExact: true, Place: directory.InVersion}, &version
	case "meta.created", "meta.lastmodified":
		at := Attribute{Name: "meta." + sub, Type: TypeDateTime}
		field := directory.Field{Path: []string{"meta", "created"}, Kind: directory.Time, Place: directory.InCreated}
		if sub == "lastmodified" {
			field.Path[1], field.Place = "lastModified", directory.InModified
		}
		return field, &at
	}
	return directory.Field{}, nil
}

func kindOf(a *Attribute) directory.Kind {
	switch a.Type {
	case TypeBoolean:
		return directory.Boolean
	case TypeInteger, TypeDecimal:
		return directory.Number
	case TypeDateTime:
		return directory.Time
	case TypeComplex:
		return directory.Complex
	default:
		return directory.String
	}
}

// filterValue coerces a filter's value to the field's type; nil is null.
func filterValue(field directory.Field, a *Attribute, value any) (any, error) {
	if s, ok := value.(string); ok {
		// The parser does not decode JSON escapes.
		if err := json.Unmarshal([]byte(`"`+s+`"`), &s); err != nil {
			return nil, violationf(invalidFilter, "filter: the string compared with %s is not valid JSON", a.Name)
		}
		if strings.ContainsRune(s, 0) {
			return nil, violationf(invalidFilter, "filter: the string compared with %s must not contain U+0000", a.Name)
		}
		value = s
	}
	mismatch := violationf(invalidFilter, "filter: the value compared with %s has the wrong type", a.Name)
	switch v := value.(type) {
	case nil:
		return nil, nil //nolint:nilnil // null is a value here
	case bool:
		if field.Kind == directory.Boolean {
			return v, nil
		}
		if field.Kind == directory.String { // an unquoted true or false
			return fmt.Sprint(v), nil
		}
	case json.Number:
		if field.Kind == directory.Number && isNumber(v, TypeDecimal) {
			return v, nil
		}
		if field.Kind == directory.String {
			return v.String(), nil
		}
	case string:
		switch field.Kind {
		case directory.String:
			return v, nil
		case directory.Boolean:
			if strings.EqualFold(v, "true") || strings.EqualFold(v, "false") {
				return strings.EqualFold(v, "true"), nil
			}
		case directory.Time:
			if at, err := parseTime(v); err == nil {
				return at, nil
			}
		default:
		}
	}
	return nil, mismatch
}
