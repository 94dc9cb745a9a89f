// Package schema defines the SCIM schemas and resource types (RFC 7643), the violations of them, and the
// JSON of resources. It knows no HTTP and no database.
package schema

import "strings"

// Attribute is a schema attribute (RFC 7643 section 7). Type conversion, validation,
// filters, PATCH and projection are driven by it.
type Attribute struct {
	Name            string      `json:"name"`
	Type            Type        `json:"type"`
	SubAttributes   []Attribute `json:"subAttributes,omitempty"`
	MultiValued     bool        `json:"multiValued"`
	Description     string      `json:"description"`
	Required        bool        `json:"required"`
	CanonicalValues []string    `json:"canonicalValues,omitempty"`
	CaseExact       bool        `json:"caseExact"`
	Mutability      Mutability  `json:"mutability"`
	Returned        Returned    `json:"returned"`
	Uniqueness      string      `json:"uniqueness"`
	ReferenceTypes  []string    `json:"referenceTypes,omitempty"`

	// Edge is set if values are stored as edges between resources, not in the document.
	Edge bool `json:"-"`
	// Unbounded is set for an edge attribute of any size, which is read and changed in parts.
	Unbounded bool `json:"-"`
	// Discarded is set if values are accepted but never stored.
	Discarded bool `json:"-"`
	// Alias is another name that is accepted in requests.
	Alias string `json:"-"`
}

// Type is a data type of RFC 7643 section 2.3.
type Type string

// The types.
const (
	TypeString    Type = "string"
	TypeBoolean   Type = "boolean"
	TypeDecimal   Type = "decimal"
	TypeInteger   Type = "integer"
	TypeDateTime  Type = "dateTime"
	TypeBinary    Type = "binary"
	TypeReference Type = "reference"
	TypeComplex   Type = "complex"
)

// Mutability defines when an attribute may be written.
type Mutability string

// Values of [Mutability].
const (
	ReadWrite Mutability = "readWrite"
	ReadOnly  Mutability = "readOnly"
	Immutable Mutability = "immutable" // may be set once
	WriteOnly Mutability = "writeOnly"
)

// Returned defines when a response contains an attribute.
type Returned string

// Values of [Returned].
const (
	Always  Returned = "always"
	Default Returned = "default"
	Request Returned = "request" // only if the request names it
	Never   Returned = "never"
)

// Values of Attribute.Uniqueness. Server and global both mean within the tenant.
const (
	UniqueNone   = "none"
	UniqueServer = "server"
	UniqueGlobal = "global"
)

// Schema is a set of attributes under a URN.
type Schema struct {
	ID          string      `json:"id"`
	Name        string      `json:"name"`
	Description string      `json:"description"`
	Attributes  []Attribute `json:"attributes"`
}

// ResourceType is an endpoint with its schemas (RFC 7643 section 6).
type ResourceType struct {
	Name       string
	Endpoint   string // e.g. /Users
	Schema     *Schema
	Extensions []*Schema
	// Unique is the attribute with a dedicated unique index, or empty.
	Unique string
	// Hides is set if the stored document may hold attributes that are not returned by default.
	Hides bool
	// Uniques are the other attributes with unique values.
	Uniques []located
}

// located is an attribute with the schema that contains it.
type located struct {
	Schema *Schema
	*Attribute
}

// prepared returns the type with the fields that are derived from its schemas.
func (rt ResourceType) prepared() *ResourceType {
	rt.Hides, rt.Uniques = false, nil
	for _, schema := range rt.Schemas() {
		for i := range schema.Attributes {
			a := &schema.Attributes[i]
			rt.Hides = rt.Hides || (a.Concealed() && !a.Discarded)
			for j := range a.SubAttributes {
				rt.Hides = rt.Hides || a.SubAttributes[j].Concealed()
			}
			if a.Uniqueness != UniqueNone && a.Name != rt.Unique {
				rt.Uniques = append(rt.Uniques, located{schema, a})
			}
		}
	}
	return &rt
}

// Concealed reports whether the attribute is returned only on request or never.
func (a *Attribute) Concealed() bool { return a.Returned == Never || a.Returned == Request }

// Path returns an attribute's name, prefixed with the URN if the schema is an extension.
func (rt *ResourceType) Path(schema *Schema, a *Attribute) string {
	if schema == rt.Schema {
		return a.Name
	}
	return schema.ID + ":" + a.Name
}

// FindAttribute returns the attribute with the name, without regard to case (RFC 7643 section
// 2.1), or nil.
func FindAttribute(attributes []Attribute, name string) *Attribute {
	for i := range attributes {
		if a := &attributes[i]; strings.EqualFold(a.Name, name) || (a.Alias != "" && strings.EqualFold(a.Alias, name)) {
			return a
		}
	}
	return nil
}

// Find resolves a name with an optional schema URN. Without a URN, it also searches the
// extensions if the core schema has no such attribute, because Entra filters by `manager`.
func (rt *ResourceType) Find(name string) (*Schema, *Attribute) {
	schema, rest := rt.SplitURN(name)
	if a := FindAttribute(schema.Attributes, rest); a != nil || rest != name {
		return schema, a
	}
	for _, extension := range rt.Extensions {
		if a := FindAttribute(extension.Attributes, name); a != nil {
			return extension, a
		}
	}
	return schema, nil
}

// Sub returns the sub-attribute with the name, without regard to case, or nil.
func (a *Attribute) Sub(name string) *Attribute { return FindAttribute(a.SubAttributes, name) }

// Extension returns the extension with the URN, without regard to case, or nil.
func (rt *ResourceType) Extension(urn string) *Schema {
	for _, s := range rt.Extensions {
		if strings.EqualFold(s.ID, urn) {
			return s
		}
	}
	return nil
}

// Schemas returns all schemas of the type, the core schema first.
func (rt *ResourceType) Schemas() []*Schema {
	return append([]*Schema{rt.Schema}, rt.Extensions...)
}

// SplitURN splits a name into the schema whose URN it begins with and the rest:
// "urn:…:enterprise:2.0:User:department" is the extension and "department".
// Without a URN it returns the core schema; rest is empty for a bare URN.
func (rt *ResourceType) SplitURN(name string) (schema *Schema, rest string) {
	schema, rest = rt.Schema, name
	longest := 0 // one URN may be a prefix of another
	for _, s := range rt.Schemas() {
		n := len(s.ID)
		if n > longest && len(name) >= n && strings.EqualFold(name[:n], s.ID) && (len(name) == n || name[n] == ':') {
			schema, rest, longest = s, strings.TrimPrefix(name[n:], ":"), n
		}
	}
	return schema, rest
}
