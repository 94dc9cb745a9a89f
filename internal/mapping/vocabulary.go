package mapping

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// Vocabulary is the set of schema attributes that expressions may name. The variables are
//
//	type        User or Agent
//	user, agent the core attributes
//	enterprise  the enterprise extension (RFC 7643 section 4.3)
//	claims      the attributes of the tenant's own extensions
//	extensions  the extensions by URN, without types
//	groups      the groups: id, displayName, externalId, direct
type Vocabulary struct {
	User, Agent, Enterprise []Attribute
	EnterpriseURN           string
	// Claims are the tenant's own extensions, by URN.
	Claims map[string][]Attribute
}

// Attribute is an attribute of a schema (RFC 7643 section 7), reduced to what expressions need.
type Attribute struct {
	Name        string
	Type        Type
	MultiValued bool
	Sub         []Attribute
}

// Type is the type of an attribute's value.
type Type string

// The types. All others are treated as Text.
const (
	Text    Type = "string"
	Bool    Type = "boolean"
	Integer Type = "integer"
	Decimal Type = "decimal"
	Time    Type = "dateTime"
	Complex Type = "complex"
)

// vocabulary implements types.Provider. An absent attribute has the zero value of its type, as
// in protocol buffers, so that no expression fails because an attribute is absent; `has()`
// reports whether it is present.
type vocabulary struct {
	types.Provider
	structs       map[string]map[string]*types.FieldType
	enterpriseURN string
	claims        []string // URNs
}

// fieldName matches the names that an expression can select with a dot.
var fieldName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func newVocabulary(v Vocabulary) *vocabulary {
	registry, err := types.NewRegistry()
	if err != nil {
		panic(err) // it fails only for types that are passed, and none are
	}
	vocabulary := &vocabulary{
		Provider: registry, structs: make(map[string]map[string]*types.FieldType),
		enterpriseURN: v.EnterpriseURN,
	}
	vocabulary.declare("User", v.User)
	vocabulary.declare("Agent", v.Agent)
	vocabulary.declare("Enterprise", v.Enterprise)
	vocabulary.declare("Group", []Attribute{
		{Name: "id", Type: Text},
		{Name: "displayName", Type: Text},
		{Name: "externalId", Type: Text},
		{Name: "direct", Type: Bool},
	})
	// A name that two extensions share is ambiguous, so it is left out of claims; expressions
	// can use `extensions`.
	var claims []Attribute
	count := make(map[string]int)
	for _, urn := range slices.Sorted(maps.Keys(v.Claims)) {
		vocabulary.claims = append(vocabulary.claims, urn)
		for _, a := range v.Claims[urn] {
			count[a.Name]++
			claims = append(claims, a)
		}
	}
	vocabulary.declare("Claims", slices.DeleteFunc(claims, func(a Attribute) bool { return count[a.Name] > 1 }))
	return vocabulary
}

// env returns the CEL environment of expressions.
func (v *vocabulary) env() (*cel.Env, error) {
	env, err := cel.NewEnv(
		cel.CustomTypeProvider(v),
		cel.Variable("type", cel.StringType),
		cel.Variable("user", cel.ObjectType("User")),
		cel.Variable("agent", cel.ObjectType("Agent")),
		cel.Variable("enterprise", cel.ObjectType("Enterprise")),
		cel.Variable("claims", cel.ObjectType("Claims")),
		cel.Variable("extensions", cel.MapType(cel.StringType, cel.MapType(cel.StringType, cel.DynType))),
		cel.Variable("groups", cel.ListType(cel.ObjectType("Group"))),
		cel.ParserRecursionLimit(maxDepth),
		jsonFunction(),
	)
	if err != nil {
		return nil, fmt.Errorf("create CEL environment: %w", err)
	}
	return env, nil
}

func (v *vocabulary) declare(name string, attributes []Attribute) {
	fields := make(map[string]*types.FieldType)
	for _, a := range attributes {
		if !fieldName.MatchString(a.Name) {
			continue
		}
		t, convert, zero := v.typeOf(name+"."+a.Name, a)
		fields[a.Name] = &types.FieldType{
			Type: t,
			IsSet: func(target any) bool {
				object, _ := target.(map[string]any)
				_, ok := object[a.Name]
				return ok
			},
			GetFrom: func(target any) (any, error) {
				object, _ := target.(map[string]any)
				value, ok := object[a.Name]
				if !ok || value == nil {
					return zero, nil
				}
				return convert(value)
			},
		}
	}
	v.structs[name] = fields
}

// typeOf returns an attribute's type, the conversion of its stored value, and its value if it is
// absent.
func (v *vocabulary) typeOf(name string, a Attribute) (t *cel.Type, convert func(any) (any, error), zero any) {
	switch a.Type {
	case Bool:
		t, zero = cel.BoolType, false
	case Integer:
		t, zero, convert = cel.IntType, int64(0), func(value any) (any, error) {
			number, _ := value.(float64)
			return int64(number), nil
		}
	case Decimal:
		t, zero = cel.DoubleType, 0.0
	case Time:
		t, zero, convert = cel.TimestampType, time.Time{}, func(value any) (any, error) {
			text, _ := value.(string)
			moment, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return nil, fmt.Errorf("%s is not an RFC 3339 time", a.Name)
			}
			return moment, nil
		}
	case Complex:
		v.declare(name, a.Sub)
		t, zero = cel.ObjectType(name), map[string]any{}
	default:
		t, zero = cel.StringType, ""
	}
	if convert == nil {
		convert = func(value any) (any, error) { return value, nil }
	}
	if !a.MultiValued {
		return t, convert, zero
	}
	one := convert
	return cel.ListType(t), func(value any) (any, error) {
		list, _ := value.([]any)
		converted := make([]any, 0, len(list))
		for _, element := range list {
			c, err := one(element)
			if err != nil {
				return nil, err
			}
			converted = append(converted, c)
		}
		return converted, nil
	}, []any{}
}

// FindStructType implements types.Provider.
func (v *vocabulary) FindStructType(name string) (*types.Type, bool) {
	if _, ok := v.structs[name]; ok {
		return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
	}
	return v.Provider.FindStructType(name)
}

// FindStructFieldNames implements types.Provider.
func (v *vocabulary) FindStructFieldNames(name string) ([]string, bool) {
	if fields, ok := v.structs[name]; ok {
		return slices.Sorted(maps.Keys(fields)), true
	}
	return v.Provider.FindStructFieldNames(name)
}

// FindStructFieldType implements types.Provider.
func (v *vocabulary) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if fields, ok := v.structs[name]; ok {
		f, ok := fields[field]
		return f, ok
	}
	return v.Provider.FindStructFieldType(name, field)
}

// variables returns the variables of expressions for a principal.
func (v *vocabulary) variables(p Principal) map[string]any {
	core, claims, extensions := make(map[string]any), make(map[string]any), make(map[string]any)
	for name, value := range p.Document {
		if !strings.Contains(name, ":") {
			core[name] = value
			continue
		}
		extensions[name] = value
		if attributes, ok := value.(map[string]any); ok && slices.Contains(v.claims, name) {
			for name, value := range attributes {
				claims[name] = value
			}
		}
	}
	groups := make([]any, 0, len(p.Groups))
	for _, g := range p.Groups {
		groups = append(groups, map[string]any{
			"id": g.ID.String(), "displayName": g.DisplayName,
			"externalId": g.ExternalID, "direct": g.Direct,
		})
	}
	enterprise, _ := extensions[v.enterpriseURN].(map[string]any)
	if enterprise == nil {
		enterprise = map[string]any{}
	}
	variables := map[string]any{
		"type": p.Type, "user": map[string]any{}, "agent": map[string]any{},
		"enterprise": enterprise, "claims": claims, "extensions": extensions, "groups": groups,
	}
	if p.Type == "Agent" {
		variables["agent"] = core
	} else {
		variables["user"] = core
	}
	return variables
}
