package patch

import (
	"reflect"
	"slices"
	"strings"

	"github.com/leaverhq/leaver/internal/textkey"
	"github.com/leaverhq/leaver/scim/schema"
)

// CheckRequired returns an error if a required attribute is missing. Attributes of an
// extension are required only if the resource has the extension.
func CheckRequired(rt *schema.ResourceType, o schema.Object) error {
	for _, within := range rt.Schemas() {
		members := o
		if within != rt.Schema {
			inner, ok := o[within.ID].(schema.Object)
			if !ok {
				continue
			}
			members = inner
		}
		if err := requireAll(within.Attributes, members, ""); err != nil {
			return err
		}
	}
	return nil
}

func requireAll(attributes []schema.Attribute, o schema.Object, prefix string) error {
	for i := range attributes {
		a := &attributes[i]
		value := o[a.Name]
		if a.Required && a.Mutability != schema.ReadOnly && !a.Unbounded {
			if s, isString := value.(string); value == nil || (isString && strings.TrimSpace(s) == "") {
				return schema.Errorf(schema.InvalidValue, "%s%s is required", prefix, a.Name)
			}
		}
		for _, element := range schema.ListOf(value) {
			if inner, ok := element.(schema.Object); ok && a.Type == schema.TypeComplex && !a.Edge {
				if err := requireAll(a.SubAttributes, inner, prefix+a.Name+"."); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// CheckMutability copies values from before to after that the client cannot have meant to remove:
// immutable ones (RFC 7644 section 3.5.1) and, for a PUT, those that are not returned by
// default. It returns an error if an immutable value was changed.
func CheckMutability(rt *schema.ResourceType, before, after schema.Object, replaced bool) error {
	for _, within := range rt.Schemas() {
		had, has := before, after
		if within != rt.Schema {
			had, _ = before[within.ID].(schema.Object)
			has, _ = after[within.ID].(schema.Object)
			if had == nil {
				continue
			}
			if has == nil {
				has = schema.Object{}
				after[within.ID] = has
			}
		}
		if err := checkAll(within.Attributes, had, has, replaced); err != nil {
			return err
		}
	}
	prune(after, rt)
	return nil
}

func checkAll(attributes []schema.Attribute, had, has schema.Object, replaced bool) error {
	for i := range attributes {
		a := &attributes[i]
		was, now := had[a.Name], has[a.Name]
		if was == nil || a.Edge {
			continue
		}
		if now == nil && replaced && (a.Concealed() || hasImmutable(a, was)) {
			has[a.Name] = was
			continue
		}
		if a.Mutability == schema.Immutable {
			if !equalValues(a, was, now) {
				return schema.Errorf(schema.NotMutable, "%s is immutable and already has a value", a.Name)
			}
			has[a.Name] = was
		}
		inner, ok := was.(schema.Object)
		if a.Type != schema.TypeComplex || a.MultiValued || !ok {
			continue
		}
		after, ok := now.(schema.Object)
		if !ok {
			after = schema.Object{}
		}
		if err := checkAll(a.SubAttributes, inner, after, replaced); err != nil {
			return err
		}
		if len(after) > 0 {
			has[a.Name] = after
		}
	}
	return nil
}

// hasImmutable reports whether a value, or a part of it, is immutable.
func hasImmutable(a *schema.Attribute, value any) bool {
	if a.Mutability == schema.Immutable {
		return true
	}
	members, ok := value.(schema.Object)
	return ok && slices.ContainsFunc(a.SubAttributes, func(sub schema.Attribute) bool {
		return members[sub.Name] != nil && hasImmutable(&sub, members[sub.Name])
	})
}

// equalValues reports whether two values are equal, without regard to case unless caseExact.
func equalValues(a *schema.Attribute, x, y any) bool {
	if s, ok := x.(string); ok && !a.CaseExact {
		t, ok := y.(string)
		return ok && textkey.Fold(s) == textkey.Fold(t)
	}
	return reflect.DeepEqual(x, y)
}
