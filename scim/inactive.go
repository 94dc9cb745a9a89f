package scim

import (
	"maps"
	"slices"
)

// afterOperation reports whether the principal is inactive after an operation.
func (rd reader) afterOperation(rt *ResourceType, active *Attribute, o operation, before bool) bool {
	if members, ok := o.value.(map[string]any); ok && !o.hasPath {
		for _, name := range slices.Sorted(maps.Keys(members)) { // the order in which a PATCH applies them
			member := operation{op: o.op, path: name, hasPath: true, value: members[name]}
			before = rd.afterOperation(rt, active, member, before)
		}
		return before
	}
	t, err := parsePath(rt, o.path)
	switch {
	case err != nil:
		return before
	case t.whole && t.schema == rt.Schema:
		return rd.afterOperation(rt, active, operation{op: o.op, value: o.value}, before)
	case t.attr != active || t.sub != nil || t.where != nil:
		return before
	}
	read, err := rd.value(active, o.value)
	if err != nil || read == nil {
		return before
	}
	return read == false
}

// saysInactive reports whether a resource's body deactivates the principal.
func (rd reader) saysInactive(rt *ResourceType, active *Attribute, raw map[string]any) bool {
	return rd.afterOperation(rt, active, operation{op: "replace", value: raw}, false)
}
