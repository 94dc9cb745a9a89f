package scim

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/tenant"
)

// The limits of tenants' own schemas.
const (
	maxExtensions    = 20 // of a tenant
	maxAttributes    = 100
	maxSubAttributes = 50
	maxCanonical     = 200
	maxDescription   = 1024 // bytes
)

// The names of schemas and attributes (RFC 8141 without what no filter can
// name; RFC 7643 section 2.1).
var (
	urnPattern  = regexp.MustCompile(`^urn:[A-Za-z0-9][A-Za-z0-9-]{0,31}(:[A-Za-z0-9.-]+)+$`)
	namePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)
)

// Extension is a schema that a tenant declares for a resource type.
type Extension struct {
	ResourceType string
	Schema       *Schema
}

// ParseExtension reads a schema as RFC 7643 section 7 writes it, with its
// defaults. Error: tenant.InvalidSchemaError.
func ParseExtension(resourceType string, definition []byte) (*Extension, error) {
	if !slices.Contains([]string{directory.TypeUser, directory.TypeGroup, directory.TypeAgent}, resourceType) {
		return nil, &tenant.InvalidSchemaError{Path: "resourceType", Reason: "is User, Group or Agent"}
	}
	var s Schema
	if err := json.Unmarshal(definition, &s); err != nil {
		return nil, &tenant.InvalidSchemaError{Path: "schema", Reason: "is no schema of RFC 7643 section 7 in JSON"}
	}
	lower := strings.ToLower(s.ID)
	switch {
	case len(s.ID) > 255 || !urnPattern.MatchString(s.ID):
		return nil, &tenant.InvalidSchemaError{Path: "id", Reason: "is a URN such as urn:example:acme:scim:2.0:Claims"}
	case strings.HasPrefix(lower, "urn:ietf:") || strings.HasPrefix(lower, ownURN):
		return nil, &tenant.InvalidSchemaError{Path: "id", Reason: "urn:ietf and urn:leaver are taken"}
	case len(s.Description) > maxDescription || len(s.Name) > maxDescription:
		return nil, &tenant.InvalidSchemaError{Path: "name, description", Reason: "are too long"}
	case len(s.Attributes) == 0 || len(s.Attributes) > maxAttributes:
		return nil, &tenant.InvalidSchemaError{Path: "attributes", Reason: fmt.Sprintf("are 1 to %d", maxAttributes)}
	}
	if err := completeAll(s.Attributes, "attributes", false); err != nil {
		return nil, err
	}
	return &Extension{ResourceType: resourceType, Schema: &s}, nil
}

func completeAll(attributes []Attribute, path string, inside bool) error {
	for i := range attributes {
		at := fmt.Sprintf("%s[%d]", path, i)
		if attribute(attributes[:i], attributes[i].Name) != nil {
			return &tenant.InvalidSchemaError{Path: at + ".name", Reason: "stands there twice"}
		}
		if err := attributes[i].complete(at, inside); err != nil {
			return err
		}
	}
	return nil
}

// complete fills the defaults of RFC 7643 section 2.2 in, and checks that the
// characteristics can be kept together.
func (a *Attribute) complete(path string, inside bool) error {
	fail := func(member, reason string) error {
		return &tenant.InvalidSchemaError{Path: path + "." + member, Reason: reason}
	}
	orDefault(&a.Type, TypeString)
	orDefault(&a.Mutability, ReadWrite)
	orDefault(&a.Returned, Default)
	orDefault(&a.Uniqueness, UniqueNone)
	if a.Type == TypeReference || a.Type == TypeBinary {
		a.CaseExact = true // RFC 7643 sections 2.3.6 and 2.3.7
	}
	switch {
	case !namePattern.MatchString(a.Name):
		return fail("name", "is a letter, then at most 63 letters, digits, '-' and '_'")
	case !inside && isCommon(a.Name):
		return fail("name", "is a common attribute's")
	case len(a.Description) > maxDescription:
		return fail("description", "is too long")
	case !slices.Contains([]Type{TypeString, TypeBoolean, TypeDecimal, TypeInteger, TypeDateTime, TypeBinary, TypeReference, TypeComplex}, a.Type):
		return fail("type", "is none of RFC 7643 section 2.3")
	case inside && a.Type == TypeComplex:
		return fail("type", "a complex attribute holds no complex one")
	case (a.Type == TypeComplex) != (len(a.SubAttributes) > 0) || len(a.SubAttributes) > maxSubAttributes:
		return fail("subAttributes", fmt.Sprintf("a complex attribute has 1 to %d, others none", maxSubAttributes))
	case a.Mutability == ReadOnly:
		return fail("mutability", "nobody could write it: leaver computes nothing for a schema of yours")
	case !slices.Contains([]Mutability{ReadWrite, Immutable, WriteOnly}, a.Mutability):
		return fail("mutability", "is readWrite, immutable or writeOnly")
	case !slices.Contains([]Returned{Always, Default, Request, Never}, a.Returned):
		return fail("returned", "is always, default, request or never")
	case (a.Mutability == WriteOnly) != (a.Returned == Never):
		return fail("returned", "is never for a writeOnly attribute, and only for one")
	case !slices.Contains([]string{UniqueNone, UniqueServer, UniqueGlobal}, a.Uniqueness):
		return fail("uniqueness", "is none, server or global")
	case a.Uniqueness != UniqueNone && (inside || a.MultiValued || a.Type == TypeComplex || a.Type == TypeBoolean):
		return fail("uniqueness", "only a simple, single-valued attribute can be unique")
	case inside && a.MultiValued:
		return fail("multiValued", "a sub-attribute has one value")
	case len(a.CanonicalValues) > maxCanonical || (len(a.CanonicalValues) > 0 && a.Type != TypeString && a.Type != TypeReference):
		return fail("canonicalValues", fmt.Sprintf("are at most %d, of a string", maxCanonical))
	case len(a.ReferenceTypes) > 0 && a.Type != TypeReference:
		return fail("referenceTypes", "are for references")
	}
	return completeAll(a.SubAttributes, path+".subAttributes", true)
}

func orDefault[T ~string](value *T, standard T) {
	if *value == "" {
		*value = standard
	}
}

// CheckExtension tells whether a schema can be declared beside the others, or in
// place of one of the same URN: what resources hold keeps its meaning.
// Error: tenant.InvalidSchemaError.
func CheckExtension(e *Extension, existing []*Extension) error {
	for _, other := range existing {
		if !strings.EqualFold(other.Schema.ID, e.Schema.ID) {
			continue
		}
		if other.Schema.ID != e.Schema.ID || other.ResourceType != e.ResourceType {
			return &tenant.InvalidSchemaError{Path: "id", Reason: "is that of a schema of " + other.ResourceType + "s, " + other.Schema.ID}
		}
		return keepsMeaning(other.Schema.Attributes, e.Schema.Attributes, "attributes")
	}
	if len(existing) >= maxExtensions {
		return &tenant.InvalidSchemaError{Path: "id", Reason: fmt.Sprintf("a tenant has at most %d schemas", maxExtensions)}
	}
	return nil
}

func keepsMeaning(before, after []Attribute, path string) error {
	for i := range before {
		was := &before[i]
		is := attribute(after, was.Name)
		if is == nil {
			return &tenant.InvalidSchemaError{Path: path, Reason: was.Name + " is missing: attributes can be added, not taken away"}
		}
		if is.Name != was.Name || is.Type != was.Type || is.MultiValued != was.MultiValued || is.CaseExact != was.CaseExact || is.Uniqueness != was.Uniqueness {
			return &tenant.InvalidSchemaError{Path: path, Reason: was.Name + ": name, type, multiValued, caseExact and uniqueness stay as they are"}
		}
		if err := keepsMeaning(was.SubAttributes, is.SubAttributes, path+"."+was.Name); err != nil {
			return err
		}
	}
	return nil
}

// CheckDeclared reads a schema that a tenant wants to declare beside the others,
// and returns it under its URN with its defaults written out.
// Error: tenant.InvalidSchemaError.
func CheckDeclared(declared tenant.Schema, existing []tenant.Schema) (tenant.Schema, error) {
	e, err := ParseExtension(declared.ResourceType, declared.Definition)
	if err != nil {
		return declared, err
	}
	others, err := parseDeclared(existing)
	if err != nil {
		return declared, err
	}
	if err := CheckExtension(e, others); err != nil {
		return declared, err
	}
	declared.URN = e.Schema.ID
	if declared.Definition, err = json.Marshal(e.Schema); err != nil {
		return declared, fmt.Errorf("encode a schema: %w", err)
	}
	return declared, nil
}

func parseDeclared(declared []tenant.Schema) ([]*Extension, error) {
	var extensions []*Extension
	for _, d := range declared {
		e, err := ParseExtension(d.ResourceType, d.Definition)
		if err != nil {
			return nil, fmt.Errorf("stored schema %s: %w", d.URN, err)
		}
		extensions = append(extensions, e)
	}
	return extensions, nil
}

// ResourceTypes are the built-in types with a tenant's extensions.
func ResourceTypes(extensions []*Extension) []*ResourceType {
	types := []*ResourceType{UserType(), GroupType(), AgentType()}
	for i, rt := range types {
		for _, e := range extensions {
			if e.ResourceType == rt.Name {
				rt.Extensions = append(rt.Extensions, e.Schema)
			}
		}
		types[i] = rt.prepared()
	}
	return types
}
