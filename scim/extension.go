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

// Limits of custom schemas.
const (
	maxExtensions    = 20 // per tenant
	maxAttributes    = 100
	maxSubAttributes = 50
	maxCanonical     = 200
	maxDescription   = 1024 // bytes
)

// Patterns of schema URNs (RFC 8141, limited to the characters that filters support) and
// of attribute names (RFC 7643 section 2.1).
var (
	urnPattern  = regexp.MustCompile(`^urn:[A-Za-z0-9][A-Za-z0-9-]{0,31}(:[A-Za-z0-9.-]+)+$`)
	namePattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)
)

// Extension is a schema that a tenant declares for a resource type.
type Extension struct {
	ResourceType string
	Schema       *Schema
}

// ParseExtension parses a schema in the JSON of RFC 7643 section 7 and sets defaults. It
// returns a [tenant.InvalidSchemaError] if the schema is invalid.
func ParseExtension(resourceType string, definition []byte) (*Extension, error) {
	if !slices.Contains([]string{directory.TypeUser, directory.TypeGroup, directory.TypeAgent}, resourceType) {
		return nil, &tenant.InvalidSchemaError{
			Path: "resourceType", Reason: fmt.Sprintf("must be one of User, Group, Agent, got %q", clip(resourceType)),
		}
	}
	var s Schema
	if err := json.Unmarshal(definition, &s); err != nil {
		return nil, &tenant.InvalidSchemaError{Path: "schema", Reason: "must be a schema of RFC 7643 section 7 in JSON"}
	}
	lower := strings.ToLower(s.ID)
	switch {
	case len(s.ID) > 255 || !urnPattern.MatchString(s.ID):
		return nil, &tenant.InvalidSchemaError{
			Path:   "id",
			Reason: fmt.Sprintf("must be a URN such as urn:example:acme:scim:2.0:Claims, got %q", clip(s.ID)),
		}
	case strings.HasPrefix(lower, "urn:ietf:") || strings.HasPrefix(lower, ownURN):
		return nil, &tenant.InvalidSchemaError{Path: "id", Reason: "must not begin with urn:ietf: or " + ownURN}
	case len(s.Description) > maxDescription || len(s.Name) > maxDescription:
		return nil, &tenant.InvalidSchemaError{
			Path: "name, description", Reason: fmt.Sprintf("must be at most %d bytes each", maxDescription),
		}
	case len(s.Attributes) == 0 || len(s.Attributes) > maxAttributes:
		return nil, &tenant.InvalidSchemaError{
			Path:   "attributes",
			Reason: fmt.Sprintf("must have 1 to %d elements, got %d", maxAttributes, len(s.Attributes)),
		}
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
			return &tenant.InvalidSchemaError{
				Path: at + ".name", Reason: fmt.Sprintf("duplicate name %q", clip(attributes[i].Name)),
			}
		}
		if err := attributes[i].complete(at, inside); err != nil {
			return err
		}
	}
	return nil
}

// complete sets the defaults of RFC 7643 section 2.2 and returns an error if the
// characteristics are invalid or contradict each other.
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
		return fail("name", fmt.Sprintf(
			"must be a letter followed by at most 63 letters, digits, '-' or '_', got %q", clip(a.Name)))
	case !inside && isCommon(a.Name):
		return fail("name", a.Name+" is reserved for a common attribute")
	case len(a.Description) > maxDescription:
		return fail("description", fmt.Sprintf("must be at most %d bytes", maxDescription))
	case !slices.Contains([]Type{
		TypeString, TypeBoolean, TypeDecimal, TypeInteger, TypeDateTime, TypeBinary, TypeReference, TypeComplex,
	}, a.Type):
		return fail("type", fmt.Sprintf("must be a data type of RFC 7643 section 2.3, got %q", clip(string(a.Type))))
	case inside && a.Type == TypeComplex:
		return fail("type", "a sub-attribute must not be complex")
	case (a.Type == TypeComplex) != (len(a.SubAttributes) > 0) || len(a.SubAttributes) > maxSubAttributes:
		return fail("subAttributes",
			fmt.Sprintf("a complex attribute must have 1 to %d, others none", maxSubAttributes))
	case a.Mutability == ReadOnly:
		return fail("mutability", "readOnly is not supported in a custom schema: no value could ever be set")
	case !slices.Contains([]Mutability{ReadWrite, Immutable, WriteOnly}, a.Mutability):
		return fail("mutability",
			fmt.Sprintf("must be one of readWrite, immutable, writeOnly, got %q", clip(string(a.Mutability))))
	case !slices.Contains([]Returned{Always, Default, Request, Never}, a.Returned):
		return fail("returned",
			fmt.Sprintf("must be one of always, default, request, never, got %q", clip(string(a.Returned))))
	case (a.Mutability == WriteOnly) != (a.Returned == Never):
		return fail("returned", "must be never for a writeOnly attribute, and only for it")
	case !slices.Contains([]string{UniqueNone, UniqueServer, UniqueGlobal}, a.Uniqueness):
		return fail("uniqueness", fmt.Sprintf("must be one of none, server, global, got %q", clip(a.Uniqueness)))
	case a.Uniqueness != UniqueNone && (inside || a.MultiValued || a.Type == TypeComplex || a.Type == TypeBoolean):
		return fail("uniqueness", "only a simple, single-valued attribute that is not boolean can be unique")
	case inside && a.MultiValued:
		return fail("multiValued", "a sub-attribute must be single-valued")
	case len(a.CanonicalValues) > maxCanonical ||
		(len(a.CanonicalValues) > 0 && a.Type != TypeString && a.Type != TypeReference):
		return fail("canonicalValues",
			fmt.Sprintf("must have at most %d elements and belong to a string or reference", maxCanonical))
	case len(a.ReferenceTypes) > 0 && a.Type != TypeReference:
		return fail("referenceTypes", "are allowed for type reference only")
	}
	return completeAll(a.SubAttributes, path+".subAttributes", true)
}

func orDefault[T ~string](value *T, standard T) {
	if *value == "" {
		*value = standard
	}
}

// CheckExtension returns a [tenant.InvalidSchemaError] if the schema can neither be added
// to the existing ones nor replace the one with the same URN without changing the meaning
// of stored values.
func CheckExtension(e *Extension, existing []*Extension) error {
	for _, other := range existing {
		if !strings.EqualFold(other.Schema.ID, e.Schema.ID) {
			continue
		}
		if other.Schema.ID != e.Schema.ID || other.ResourceType != e.ResourceType {
			return &tenant.InvalidSchemaError{
				Path: "id", Reason: fmt.Sprintf("already declared as %s for %s", other.Schema.ID, other.ResourceType),
			}
		}
		return keepsMeaning(other.Schema.Attributes, e.Schema.Attributes, "attributes")
	}
	if len(existing) >= maxExtensions {
		return &tenant.InvalidSchemaError{
			Path: "id", Reason: fmt.Sprintf("the tenant already has %d schemas, the maximum", maxExtensions),
		}
	}
	return nil
}

func keepsMeaning(before, after []Attribute, path string) error {
	for i := range before {
		was := &before[i]
		is := attribute(after, was.Name)
		if is == nil {
			return &tenant.InvalidSchemaError{
				Path: path, Reason: was.Name + " is missing: attributes can be added but not removed",
			}
		}
		if is.Name != was.Name || is.Type != was.Type || is.MultiValued != was.MultiValued ||
			is.CaseExact != was.CaseExact || is.Uniqueness != was.Uniqueness {
			return &tenant.InvalidSchemaError{
				Path: path, Reason: was.Name + ": name, type, multiValued, caseExact and uniqueness cannot be changed",
			}
		}
		if err := keepsMeaning(was.SubAttributes, is.SubAttributes, path+"."+was.Name); err != nil {
			return err
		}
	}
	return nil
}

// CheckDeclared validates a tenant's schema against its existing ones and returns it with
// its URN and all defaults set. It returns a [tenant.InvalidSchemaError] if the schema is
// invalid.
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
		return declared, fmt.Errorf("encode schema %s: %w", declared.URN, err)
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

// ResourceTypes returns the built-in resource types with a tenant's extensions.
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
