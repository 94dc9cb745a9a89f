package patch

import (
	"encoding/json"
	"strings"

	"github.com/leaverhq/leaver/scim/filter"
	"github.com/leaverhq/leaver/scim/schema"
)

// target is a PATCH path that is resolved against the schema. Objects are never accessed by
// the names in the client's path.
type target struct {
	schema *schema.Schema
	whole  bool // the schema itself
	attr   *schema.Attribute
	sub    *schema.Attribute
	// where selects elements of a multi-valued attribute. assertions are its eq
	// comparisons, from which a missing element is created.
	where      filter.Condition
	assertions schema.Object
	// ignored is set for a common attribute, which clients echo without meaning to change it.
	ignored bool
	// readOnly is set for an attribute that only the server writes.
	readOnly bool
}

// parsePath parses a PATCH path (RFC 7644 section 3.5.2).
func parsePath(rt *schema.ResourceType, path string) (*target, error) {
	path = strings.TrimSpace(path)
	within, rest := rt.SplitURN(path)
	if within == rt.Schema && strings.HasPrefix(strings.ToLower(rest), "urn:") {
		return nil, &unknownAttributeError{
			schema.Errorf(schema.InvalidPath, "%s has no schema for the path %q", rt.Name, schema.Clip(path)),
		}
	}
	if rest == "" && path != "" {
		return &target{schema: within, whole: true}, nil
	}
	tokens, err := filter.ScanFilter(rest)
	if err != nil {
		return nil, schema.Errorf(schema.InvalidPath, "path: %s", err.Error())
	}
	invalid := schema.Errorf(schema.InvalidPath, "invalid path %q", schema.Clip(path))
	var b filter.Bracket
	behind := tokens[1:]
	if len(tokens) > 1 {
		if tokens[1] != "[" {
			return nil, invalid
		}
		if b, behind, err = filter.CutBracket(tokens); err != nil {
			return nil, invalid
		}
	}
	head, ok := filter.SimplePath(string(tokens[0]))
	sub := head.SubAttribute
	if len(behind) == 1 && behind[0][0] == '.' && sub == nil {
		name := string(behind[0][1:])
		sub, behind = &name, nil
	}
	if !ok || len(behind) > 0 || (len(tokens) > 1 && (len(b.Inner) == 0 || head.SubAttribute != nil)) {
		return nil, invalid
	}
	return resolveTarget(rt, within, head.AttributeName, sub, b.Inner)
}

// resolveTarget resolves names against the schema. where is the value filter, or nil.
func resolveTarget(
	rt *schema.ResourceType, within *schema.Schema, name string, sub *string, where []filter.Token,
) (*target, error) {
	t := &target{schema: within}
	if within == rt.Schema && schema.IsCommon(name) {
		t.ignored = true
		return t, nil
	}
	if t.attr = schema.FindAttribute(within.Attributes, name); t.attr == nil && within == rt.Schema {
		t.schema, t.attr = rt.Find(name) // an extension's attribute without its URN
	}
	if t.attr == nil {
		return nil, &unknownAttributeError{
			schema.Errorf(schema.InvalidPath, "%s has no attribute %q", rt.Name, schema.Clip(name)),
		}
	}
	t.readOnly = t.attr.Mutability == schema.ReadOnly
	if sub != nil {
		if t.sub = t.attr.Sub(*sub); t.sub == nil {
			unknown := schema.Errorf(schema.InvalidPath, "%s has no sub-attribute %q", t.attr.Name, schema.Clip(*sub))
			if t.attr.Type == schema.TypeComplex {
				return nil, &unknownAttributeError{unknown}
			}
			return nil, unknown
		}
		t.readOnly = t.readOnly || t.sub.Mutability == schema.ReadOnly
	}
	if where == nil {
		return t, nil
	}
	if t.attr.Type != schema.TypeComplex {
		return nil, schema.Errorf(schema.InvalidPath,
			"%s is not a complex attribute: a value filter is not supported", t.attr.Name)
	}
	var err error
	if t.where, err = (filter.Resolver{Rt: rt, Element: t.attr}).Parse(where); err != nil {
		return nil, schema.Errorf(schema.InvalidPath, "path: %s", err.Error())
	}
	t.assertions = schema.Object{}
	assertions(t.where, t.assertions)
	return t, nil
}

// name returns the name of the attribute for errors.
func (t *target) name() string {
	if t.sub != nil {
		return t.attr.Name + "." + t.sub.Name
	}
	return t.attr.Name
}

// assertions collects the eq comparisons of a conjunction.
func assertions(c filter.Condition, into schema.Object) {
	switch c := c.(type) {
	case filter.And:
		assertions(c.Left, into)
		assertions(c.Right, into)
	case filter.Compare:
		switch v := c.Value.(type) {
		case string, bool, json.Number:
			if c.Op == filter.Eq {
				into[c.Field.Path[0]] = v
			}
		}
	}
}

// unknownAttributeError is returned for a path to an unknown attribute. Like an unknown
// attribute in a POST, it is ignored unless the tenant is strict: an extra attribute of an
// IdP must not prevent a deactivation in the same request.
type unknownAttributeError struct{ cause *schema.Error }

func (e *unknownAttributeError) Error() string { return e.cause.Error() }
func (e *unknownAttributeError) Unwrap() error { return e.cause }
