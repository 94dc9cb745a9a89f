package filter

import (
	"github.com/leaverhq/leaver/internal/textkey"
)

// Condition selects resources. It is a SCIM filter (RFC 7644 section 3.4.2.2) whose names
// package scim has resolved against the schema.
type Condition interface{ condition() }

type (
	// And holds if both conditions hold.
	And struct{ Left, Right Condition }
	// Or holds if at least one condition holds.
	Or struct{ Left, Right Condition }
	// Not holds if the inner condition does not hold.
	Not struct{ Inner Condition }
	// Compare holds if the comparison is true for the field's value, or for one of the
	// values of a multi-valued field.
	Compare struct {
		Field Field
		Op    Op
		Value any // string, bool, json.Number, time.Time, or nil for null
	}
	// Element holds if one element of a multi-valued field meets Where, whose fields are
	// relative to the element.
	Element struct {
		Field Field
		Where Condition
	}
)

func (And) condition() {}

func (Or) condition() {}

func (Not) condition() {}

func (Compare) condition() {}

func (Element) condition() {}

// Op is a comparison operator.
type Op string

// The operators of RFC 7644 table 3.
const (
	Eq Op = "eq"
	Ne Op = "ne"
	Co Op = "co"
	Sw Op = "sw"
	Ew Op = "ew"
	Gt Op = "gt"
	Ge Op = "ge"
	Lt Op = "lt"
	Le Op = "le"
	Pr Op = "pr"
)

// Kind is the type of a field's values.
type Kind int

// The kinds.
const (
	String Kind = iota
	Boolean
	Number
	Time
	Complex // only for pr
)

// Place is where a field's values are stored.
type Place int

// The places.
const (
	InDocument Place = iota
	InID
	InUniqueName
	InExternalID
	InDisplayName
	InActive
	InCreated
	InModified
	InEdges  // Path[0] is the edge's attribute
	InGroups // groups with an edge to the resource
	InType
	InVersion
	InSchemas     // CoreURN and RestrictionURN are not stored in the document
	InRestriction // the last of Path names the column, see restrictionColumns
)

// Field identifies the value that a condition tests.
type Field struct {
	Path      []string // in the resource as JSON, or in an element; canonical names
	Multi     bool     // the value at Path is a list
	Sub       string   // in each element of the list
	Kind      Kind
	CaseExact bool
	Place     Place
	// CoreURN and RestrictionURN are for InSchemas.
	CoreURN, RestrictionURN string
}

// Key returns the key by which the field's strings are compared.
func (f Field) Key(text string) string {
	if f.CaseExact {
		return textkey.Exact(text)
	}
	return textkey.Fold(text)
}
