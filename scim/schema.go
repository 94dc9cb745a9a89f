package scim

import "strings"

// Attribute is a schema attribute (RFC 7643 section 7). All of coercion,
// validation, filtering, PATCH and projection follows from it.
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

	// edge: stored as edges between resources, not in the document.
	edge bool
	// unbounded: an edge of any number, changed and read without loading it.
	unbounded bool
	// discarded: accepted, and never stored.
	discarded bool
	// alias is another name that clients may use on the way in.
	alias string
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

// Mutability says when an attribute may be written.
type Mutability string

// The mutabilities.
const (
	ReadWrite Mutability = "readWrite"
	ReadOnly  Mutability = "readOnly"
	Immutable Mutability = "immutable" // may be set once
	WriteOnly Mutability = "writeOnly"
)

// Returned says when an attribute is in an answer.
type Returned string

// The returnednesses.
const (
	Always  Returned = "always"
	Default Returned = "default"
	Request Returned = "request" // only where it is asked for
	Never   Returned = "never"
)

// The uniquenesses. Server and global mean the same here: within the tenant.
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
	// unique is the attribute whose values have an index of their own, or empty.
	unique string
	// hides tells whether the stored document holds what is not always returned.
	hides bool
	// uniques are the other attributes whose values are unique.
	uniques []located
}

// located is an attribute with the schema that it stands in.
type located struct {
	schema *Schema
	*Attribute
}

// prepared returns the type with what follows from its schemas.
func (rt ResourceType) prepared() *ResourceType {
	rt.hides, rt.uniques = false, nil
	for _, schema := range rt.schemas() {
		for i := range schema.Attributes {
			a := &schema.Attributes[i]
			rt.hides = rt.hides || (a.concealed() && !a.discarded)
			for j := range a.SubAttributes {
				rt.hides = rt.hides || a.SubAttributes[j].concealed()
			}
			if a.Uniqueness != UniqueNone && a.Name != rt.unique {
				rt.uniques = append(rt.uniques, located{schema, a})
			}
		}
	}
	return &rt
}

// concealed tells whether an answer holds the attribute only where it is asked
// for, or never.
func (a *Attribute) concealed() bool { return a.Returned == Never || a.Returned == Request }

// path is an attribute's name with the URN of an extension before it.
func (rt *ResourceType) path(schema *Schema, a *Attribute) string {
	if schema == rt.Schema {
		return a.Name
	}
	return schema.ID + ":" + a.Name
}

// attribute finds an attribute by name, without regard to case (RFC 7643 section 2.1).
func attribute(attributes []Attribute, name string) *Attribute {
	for i := range attributes {
		if a := &attributes[i]; strings.EqualFold(a.Name, name) || (a.alias != "" && strings.EqualFold(a.alias, name)) {
			return a
		}
	}
	return nil
}

// find resolves a name that may carry a schema's URN. An extension's attribute
// is found without its URN too where the core schema has none of that name, as
// Entra filters by `manager`.
func (rt *ResourceType) find(name string) (*Schema, *Attribute) {
	schema, rest := rt.splitURN(name)
	if a := attribute(schema.Attributes, rest); a != nil || rest != name {
		return schema, a
	}
	for _, extension := range rt.Extensions {
		if a := attribute(extension.Attributes, name); a != nil {
			return extension, a
		}
	}
	return schema, nil
}

func (a *Attribute) sub(name string) *Attribute { return attribute(a.SubAttributes, name) }

// extension finds an extension by its URN, without regard to case.
func (rt *ResourceType) extension(urn string) *Schema {
	for _, s := range rt.Extensions {
		if strings.EqualFold(s.ID, urn) {
			return s
		}
	}
	return nil
}

// schemas are all of the type's schemas, the core one first.
func (rt *ResourceType) schemas() []*Schema {
	return append([]*Schema{rt.Schema}, rt.Extensions...)
}

// splitURN takes a known schema's URN off the front of a name:
// "urn:…:enterprise:2.0:User:department" is the extension and "department".
// Without a URN the schema is the core one; rest is empty for a bare URN.
func (rt *ResourceType) splitURN(name string) (schema *Schema, rest string) {
	schema, rest = rt.Schema, name
	longest := 0 // one URN may be the beginning of another
	for _, s := range rt.schemas() {
		n := len(s.ID)
		if n > longest && len(name) >= n && strings.EqualFold(name[:n], s.ID) && (len(name) == n || name[n] == ':') {
			schema, rest, longest = s, strings.TrimPrefix(name[n:], ":"), n
		}
	}
	return schema, rest
}
