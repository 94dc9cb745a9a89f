package scim

import (
	"reflect"
	"slices"
	"strings"
)

// checkRequired returns an error if a required attribute is missing. Attributes of an
// extension are required only if the resource has the extension.
func checkRequired(rt *ResourceType, o Object) error {
	for _, within := range rt.schemas() {
		members := o
		if within != rt.Schema {
			inner, ok := o[within.ID].(Object)
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

func requireAll(attributes []Attribute, o Object, prefix string) error {
	for i := range attributes {
		a := &attributes[i]
		value := o[a.Name]
		if a.Required && a.Mutability != ReadOnly && !a.unbounded {
			if s, isString := value.(string); value == nil || (isString && strings.TrimSpace(s) == "") {
				return violationf(invalidValue, "%s%s is required", prefix, a.Name)
			}
		}
		for _, element := range listOf(value) {
			if inner, ok := element.(Object); ok && a.Type == TypeComplex && !a.edge {
				if err := requireAll(a.SubAttributes, inner, prefix+a.Name+"."); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// settle copies values from before to after that the client cannot have meant to remove:
// immutable ones (RFC 7644 section 3.5.1) and, for a PUT, those that are not returned by
// default. It returns an error if an immutable value was changed.
func settle(rt *ResourceType, before, after Object, replaced bool) error {
	for _, within := range rt.schemas() {
		had, has := before, after
		if within != rt.Schema {
			had, _ = before[within.ID].(Object)
			has, _ = after[within.ID].(Object)
			if had == nil {
				continue
			}
			if has == nil {
				has = Object{}
				after[within.ID] = has
			}
		}
		if err := settleAll(within.Attributes, had, has, replaced); err != nil {
			return err
		}
	}
	prune(after, rt)
	return nil
}

func settleAll(attributes []Attribute, had, has Object, replaced bool) error {
	for i := range attributes {
		a := &attributes[i]
		was, now := had[a.Name], has[a.Name]
		if was == nil || a.edge {
			continue
		}
		if now == nil && replaced && (a.concealed() || keepsSomething(a, was)) {
			has[a.Name] = was
			continue
		}
		if a.Mutability == Immutable {
			if !equalValues(a, was, now) {
				return violationf(mutability, "%s is immutable and already has a value", a.Name)
			}
			has[a.Name] = was
		}
		inner, ok := was.(Object)
		if a.Type != TypeComplex || a.MultiValued || !ok {
			continue
		}
		after, ok := now.(Object)
		if !ok {
			after = Object{}
		}
		if err := settleAll(a.SubAttributes, inner, after, replaced); err != nil {
			return err
		}
		if len(after) > 0 {
			has[a.Name] = after
		}
	}
	return nil
}

// keepsSomething reports whether a value, or a part of it, is immutable.
func keepsSomething(a *Attribute, value any) bool {
	if a.Mutability == Immutable {
		return true
	}
	members, ok := value.(Object)
	return ok && slices.ContainsFunc(a.SubAttributes, func(sub Attribute) bool {
		return members[sub.Name] != nil && keepsSomething(&sub, members[sub.Name])
	})
}

// equalValues reports whether two values are equal, without regard to case unless caseExact.
func equalValues(a *Attribute, x, y any) bool {
	if s, ok := x.(string); ok && !a.CaseExact {
		t, ok := y.(string)
		return ok && strings.EqualFold(s, t)
	}
	return reflect.DeepEqual(x, y)
}
