package scim

import (
	"encoding/json"
	"strings"

	"github.com/leaverhq/leaver/internal/directory"
)

// target is what a PATCH path leads to: resolved against the schema, never
// walked by the client's names.
type target struct {
	schema *Schema
	whole  bool // the extension itself
	attr   *Attribute
	sub    *Attribute
	// where selects elements of a multi-valued attribute; assertions are what
	// it says with eq, of which a missing element is made.
	where      directory.Condition
	assertions Object
	// ignored: a common attribute, which clients echo and never mean.
	ignored bool
	// readOnly: what the server alone writes.
	readOnly bool
}

// parsePath reads a PATCH path (RFC 7644 section 3.5.2).
func parsePath(rt *ResourceType, path string) (*target, error) {
	path = strings.TrimSpace(path)
	schema, rest := rt.splitURN(path)
	if schema == rt.Schema && strings.HasPrefix(strings.ToLower(rest), "urn:") {
		return nil, &unknownAttributeError{badRequest(invalidPath, "%s has no schema of %q", rt.Name, clip(path))}
	}
	if rest == "" && path != "" {
		return &target{schema: schema, whole: true}, nil
	}
	tokens, err := scanFilter(rest)
	if err != nil {
		return nil, badRequest(invalidPath, "path: %s", err.Error())
	}
	invalid := badRequest(invalidPath, "the path %q is not valid", clip(path))
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
	return resolveTarget(rt, schema, head.AttributeName, sub, b.inner)
}

// resolveTarget resolves names against the schema; where is a value filter, or
// nothing.
func resolveTarget(rt *ResourceType, schema *Schema, name string, sub *string, where []token) (*target, error) {
	t := &target{schema: schema}
	if schema == rt.Schema && isCommon(name) {
		t.ignored = true
		return t, nil
	}
	if t.attr = attribute(schema.Attributes, name); t.attr == nil && schema == rt.Schema {
		t.schema, t.attr = rt.find(name) // an extension's, without its URN
	}
	if t.attr == nil {
		return nil, &unknownAttributeError{badRequest(invalidPath, "%s has no attribute %q", rt.Name, clip(name))}
	}
	t.readOnly = t.attr.Mutability == ReadOnly
	if sub != nil {
		if t.sub = t.attr.sub(*sub); t.sub == nil {
			unknown := badRequest(invalidPath, "%s has no sub-attribute %q", t.attr.Name, clip(*sub))
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
		return nil, badRequest(invalidPath, "%s has no elements to filter", t.attr.Name)
	}
	var err error
	if t.where, err = (resolver{rt: rt, element: t.attr}).parse(where); err != nil {
		return nil, badRequest(invalidPath, "path: %s", err.Error())
	}
	t.assertions = Object{}
	assertions(t.where, t.assertions)
	return t, nil
}

// name is the attribute's, for errors.
func (t *target) name() string {
	if t.sub != nil {
		return t.attr.Name + "." + t.sub.Name
	}
	return t.attr.Name
}

// assertions collects what a conjunction of eq says of an element.
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

// unknownAttributeError is a path to what no schema has. Like an unknown
// attribute in a POST it is ignored, unless the tenant is strict: an IdP's own
// extra attribute must not keep a deactivation beside it from happening.
type unknownAttributeError struct{ cause *Error }

func (e *unknownAttributeError) Error() string { return e.cause.Error() }
func (e *unknownAttributeError) Unwrap() error { return e.cause }

// clip bounds what an error quotes of a request.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
