package scim

import (
	"encoding/json"
	"strings"

	"github.com/leaverhq/leaver/internal/directory"
)

// target is a PATCH path that is resolved against the schema. Objects are never accessed by
// the names in the client's path.
type target struct {
	schema *Schema
	whole  bool // the schema itself
	attr   *Attribute
	sub    *Attribute
	// where selects elements of a multi-valued attribute. assertions are its eq
	// comparisons, from which a missing element is created.
	where      directory.Condition
	assertions Object
	// ignored is set for a common attribute, which clients echo without meaning to change it.
	ignored bool
	// readOnly is set for an attribute that only the server writes.
	readOnly bool
}

// parsePath parses a PATCH path (RFC 7644 section 3.5.2).
func parsePath(rt *ResourceType, path string) (*target, error) {
	path = strings.TrimSpace(path)
	within, rest := rt.splitURN(path)
	if within == rt.Schema && strings.HasPrefix(strings.ToLower(rest), "urn:") {
		return nil, &unknownAttributeError{
			violationf(invalidPath, "%s has no schema for the path %q", rt.Name, clip(path)),
		}
	}
	if rest == "" && path != "" {
		return &target{schema: within, whole: true}, nil
	}
	tokens, err := scanFilter(rest)
	if err != nil {
		return nil, violationf(invalidPath, "path: %s", err.Error())
	}
	invalid := violationf(invalidPath, "invalid path %q", clip(path))
	var b bracket
	behind := tokens[1:]
	if len(tokens) > 1 {
		if tokens[1] != "[" {
			return nil, invalid
		}
		if b, behind, err = cutBracket(tokens); err != nil {
			return nil, invalid
		}
	}
	head, ok := simplePath(string(tokens[0]))
	sub := head.SubAttribute
	if len(behind) == 1 && behind[0][0] == '.' && sub == nil {
		name := string(behind[0][1:])
		sub, behind = &name, nil
	}
	if !ok || len(behind) > 0 || (len(tokens) > 1 && (len(b.inner) == 0 || head.SubAttribute != nil)) {
		return nil, invalid
	}
	return resolveTarget(rt, within, head.AttributeName, sub, b.inner)
}

// resolveTarget resolves names against the schema. where is the value filter, or nil.
func resolveTarget(rt *ResourceType, within *Schema, name string, sub *string, where []token) (*target, error) {
	t := &target{schema: within}
	if within == rt.Schema && isCommon(name) {
		t.ignored = true
		return t, nil
	}
	if t.attr = attribute(within.Attributes, name); t.attr == nil && within == rt.Schema {
		t.schema, t.attr = rt.find(name) // an extension's attribute without its URN
	}
	if t.attr == nil {
		return nil, &unknownAttributeError{violationf(invalidPath, "%s has no attribute %q", rt.Name, clip(name))}
	}
	t.readOnly = t.attr.Mutability == ReadOnly
	if sub != nil {
		if t.sub = t.attr.sub(*sub); t.sub == nil {
			unknown := violationf(invalidPath, "%s has no sub-attribute %q", t.attr.Name, clip(*sub))
			if t.attr.Type == TypeComplex {
				return nil, &unknownAttributeError{unknown}
			}
			return nil, unknown
		}
		t.readOnly = t.readOnly || t.sub.Mutability == ReadOnly
	}
	if where == nil {
		return t, nil
	}
	if t.attr.Type != TypeComplex {
		return nil, violationf(invalidPath,
			"%s is not a complex attribute: a value filter is not supported", t.attr.Name)
	}
	var err error
	if t.where, err = (resolver{rt: rt, element: t.attr}).parse(where); err != nil {
		return nil, violationf(invalidPath, "path: %s", err.Error())
	}
	t.assertions = Object{}
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
func assertions(c directory.Condition, into Object) {
	switch c := c.(type) {
	case directory.And:
		assertions(c.Left, into)
		assertions(c.Right, into)
	case directory.Compare:
		switch v := c.Value.(type) {
		case string, bool, json.Number:
			if c.Op == directory.Eq {
				into[c.Field.Path[0]] = v
			}
		}
	}
}

// unknownAttributeError is returned for a path to an unknown attribute. Like an unknown
// attribute in a POST, it is ignored unless the tenant is strict: an extra attribute of an
// IdP must not prevent a deactivation in the same request.
type unknownAttributeError struct{ cause *Violation }

func (e *unknownAttributeError) Error() string { return e.cause.Error() }
func (e *unknownAttributeError) Unwrap() error { return e.cause }
