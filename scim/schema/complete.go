package schema

import (
	"fmt"
	"slices"
)

func completeAll(attributes []Attribute, path string, inside bool) error {
	for i := range attributes {
		at := fmt.Sprintf("%s[%d]", path, i)
		if FindAttribute(attributes[:i], attributes[i].Name) != nil {
			return &DeclarationError{
				Path: at + ".name", Reason: fmt.Sprintf("duplicate name %q", Clip(attributes[i].Name)),
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
		return &DeclarationError{Path: path + "." + member, Reason: reason}
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
			"must be a letter followed by at most 63 letters, digits, '-' or '_', got %q", Clip(a.Name)))
	case !inside && IsCommon(a.Name):
		return fail("name", a.Name+" is reserved for a common attribute")
	case len(a.Description) > maxDescription:
		return fail("description", fmt.Sprintf("must be at most %d bytes", maxDescription))
	case !slices.Contains([]Type{
		TypeString, TypeBoolean, TypeDecimal, TypeInteger, TypeDateTime, TypeBinary, TypeReference, TypeComplex,
	}, a.Type):
		return fail("type", fmt.Sprintf("must be a data type of RFC 7643 section 2.3, got %q", Clip(string(a.Type))))
	case inside && a.Type == TypeComplex:
		return fail("type", "a sub-attribute must not be complex")
	case (a.Type == TypeComplex) != (len(a.SubAttributes) > 0) || len(a.SubAttributes) > maxSubAttributes:
		return fail("subAttributes",
			fmt.Sprintf("a complex attribute must have 1 to %d, others none", maxSubAttributes))
	case a.Mutability == ReadOnly:
		return fail("mutability", "readOnly is not supported in a custom schema: no value could ever be set")
	case !slices.Contains([]Mutability{ReadWrite, Immutable, WriteOnly}, a.Mutability):
		return fail("mutability",
			fmt.Sprintf("must be one of readWrite, immutable, writeOnly, got %q", Clip(string(a.Mutability))))
	case !slices.Contains([]Returned{Always, Default, Request, Never}, a.Returned):
		return fail("returned",
			fmt.Sprintf("must be one of always, default, request, never, got %q", Clip(string(a.Returned))))
	case (a.Mutability == WriteOnly) != (a.Returned == Never):
		return fail("returned", "must be never for a writeOnly attribute, and only for it")
	case !slices.Contains([]string{UniqueNone, UniqueServer, UniqueGlobal}, a.Uniqueness):
		return fail("uniqueness", fmt.Sprintf("must be one of none, server, global, got %q", Clip(a.Uniqueness)))
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
