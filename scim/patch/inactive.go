package patch

import (
	"maps"
	"slices"

	"github.com/leaverhq/leaver/scim/schema"
)

// AfterOperation reports whether the principal is inactive after an operation.
func (rd Reader) AfterOperation(rt *schema.ResourceType, active *schema.Attribute, o Operation, before bool) bool {
	if members, ok := o.Value.(map[string]any); ok && !o.HasPath {
		for _, name := range slices.Sorted(maps.Keys(members)) { // the order in which a PATCH applies them
			member := Operation{Op: o.Op, Path: name, HasPath: true, Value: members[name]}
			before = rd.AfterOperation(rt, active, member, before)
		}
		return before
	}
	t, err := parsePath(rt, o.Path)
	switch {
	case err != nil:
		return before
	case t.whole && t.schema == rt.Schema:
		return rd.AfterOperation(rt, active, Operation{Op: o.Op, Value: o.Value}, before)
	case t.attr != active || t.sub != nil || t.where != nil:
		return before
	}
	read, err := rd.value(active, o.Value)
	if list, ok := o.Value.([]any); ok && err != nil && len(list) > 0 { // the same value several times
		read, err = rd.value(active, list[0])
		for _, v := range list[1:] {
			if again, also := rd.value(active, v); also != nil || again != read {
				return before
			}
		}
	}
	if err != nil || read == nil {
		return before
	}
	return read == false
}

// SaysInactive reports whether a resource's body deactivates the principal.
func (rd Reader) SaysInactive(rt *schema.ResourceType, active *schema.Attribute, raw map[string]any) bool {
	return rd.AfterOperation(rt, active, Operation{Op: "replace", Value: raw}, false)
}
