package schema

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
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
// returns a [schema.DeclarationError] if the schema is invalid.
func ParseExtension(resourceType string, definition []byte) (*Extension, error) {
	if !slices.Contains([]string{User, Group, Agent}, resourceType) {
		return nil, &DeclarationError{
			Path: "resourceType", Reason: fmt.Sprintf("must be one of User, Group, Agent, got %q", Clip(resourceType)),
		}
	}
	var s Schema
	if err := json.Unmarshal(definition, &s); err != nil {
		return nil, &DeclarationError{Path: "schema", Reason: "must be a schema of RFC 7643 section 7 in JSON"}
	}
	lower := strings.ToLower(s.ID)
	switch {
	case len(s.ID) > 255 || !urnPattern.MatchString(s.ID):
		return nil, &DeclarationError{
			Path:   "id",
			Reason: fmt.Sprintf("must be a URN such as urn:example:acme:scim:2.0:Claims, got %q", Clip(s.ID)),
		}
	case strings.HasPrefix(lower, "urn:ietf:") || strings.HasPrefix(lower, ownURN):
		return nil, &DeclarationError{Path: "id", Reason: "must not begin with urn:ietf: or " + ownURN}
	case len(s.Description) > maxDescription || len(s.Name) > maxDescription:
		return nil, &DeclarationError{
			Path: "name, description", Reason: fmt.Sprintf("must be at most %d bytes each", maxDescription),
		}
	case len(s.Attributes) == 0 || len(s.Attributes) > maxAttributes:
		return nil, &DeclarationError{
			Path:   "attributes",
			Reason: fmt.Sprintf("must have 1 to %d elements, got %d", maxAttributes, len(s.Attributes)),
		}
	}
	if err := completeAll(s.Attributes, "attributes", false); err != nil {
		return nil, err
	}
	return &Extension{ResourceType: resourceType, Schema: &s}, nil
}

func orDefault[T ~string](value *T, standard T) {
	if *value == "" {
		*value = standard
	}
}

// CheckExtension returns a [schema.DeclarationError] if the schema can neither be added
// to the existing ones nor replace the one with the same URN without changing the meaning
// of stored values.
func CheckExtension(e *Extension, existing []*Extension) error {
	for _, other := range existing {
		if !strings.EqualFold(other.Schema.ID, e.Schema.ID) {
			continue
		}
		if other.Schema.ID != e.Schema.ID || other.ResourceType != e.ResourceType {
			return &DeclarationError{
				Path: "id", Reason: fmt.Sprintf("already declared as %s for %s", other.Schema.ID, other.ResourceType),
			}
		}
		return keepsMeaning(other.Schema.Attributes, e.Schema.Attributes, "attributes")
	}
	if len(existing) >= maxExtensions {
		return &DeclarationError{
			Path: "id", Reason: fmt.Sprintf("the tenant already has %d schemas, the maximum", maxExtensions),
		}
	}
	return nil
}

func keepsMeaning(before, after []Attribute, path string) error {
	for i := range before {
		was := &before[i]
		is := FindAttribute(after, was.Name)
		if is == nil {
			return &DeclarationError{
				Path: path, Reason: was.Name + " is missing: attributes can be added but not removed",
			}
		}
		if is.Name != was.Name || is.Type != was.Type || is.MultiValued != was.MultiValued ||
			is.CaseExact != was.CaseExact || is.Uniqueness != was.Uniqueness {
			return &DeclarationError{
				Path: path, Reason: was.Name + ": name, type, multiValued, caseExact and uniqueness cannot be changed",
			}
		}
		if err := keepsMeaning(was.SubAttributes, is.SubAttributes, path+"."+was.Name); err != nil {
			return err
		}
	}
	return nil
}

// ResourceTypes returns the built-in resource types with a tenant's extensions.
func ResourceTypes(extensions []*Extension) []*ResourceType {
	return Variant{}.ResourceTypes(extensions)
}

// Variant is a choice between profiles where RFC 7643 permits several schemas.
type Variant struct {
	// CanonicalTypes limits the types of a user's addresses to the canonical values of RFC 7643 section 4.1.2
	// (draft-zollner-scim-interop-profile section 5.4).
	CanonicalTypes bool
	// NoPassword leaves the attribute password out (IPSIE AL SCIM 2.0 section 6.1.2).
	NoPassword bool
}

// canonicalTypes returns the canonical values of type for a multi-valued attribute of a user.
func canonicalTypes(attribute string) []string {
	switch attribute {
	case "emails", "addresses":
		return []string{"work", "home", "other"}
	case "phoneNumbers":
		return []string{"work", "home", "mobile", "fax", "pager", "other"}
	case "ims":
		return []string{"aim", "gtalk", "icq", "xmpp", "msn", "skype", "qq", "yahoo"}
	case "photos":
		return []string{"photo", "thumbnail"}
	}
	return nil
}

// user applies the variant to the schema of users.
func (v Variant) user(user *Schema) {
	if v.NoPassword {
		user.Attributes = slices.DeleteFunc(user.Attributes, func(a Attribute) bool { return a.Name == "password" })
	}
	for i := range user.Attributes {
		a := &user.Attributes[i]
		if types := canonicalTypes(a.Name); v.CanonicalTypes && types != nil {
			a.Sub("type").CanonicalValues = types
		}
	}
}

// ResourceTypes returns the built-in resource types with a tenant's extensions.
func (v Variant) ResourceTypes(extensions []*Extension) []*ResourceType {
	types := []*ResourceType{UserType(), GroupType(), AgentType()}
	v.user(types[0].Schema)
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
