package scim

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/lifecycle"
)

// mustDeactivate reports whether a PUT or PATCH that failed with err must deactivate the
// principal anyway: the body deactivates it, and err is about another part of the body.
// Identity providers do not repeat a request that was answered 400, and the person has
// left. It returns false for a strict tenant, which gets the error.
func (h resourceHandler) mustDeactivate(
	r *http.Request, rt *ResourceType, trigger lifecycle.Trigger, raw map[string]any, id uuid.UUID, err error,
) bool {
	rd := readerFor(r)
	active := attribute(rt.Schema.Attributes, "active")
	if rd.strict || active == nil || raw == nil {
		return false
	}
	switch e := toError(err); {
	case e.Status == http.StatusBadRequest, e.Status == http.StatusRequestEntityTooLarge:
	case e.Status == http.StatusConflict && e.Type == uniqueness:
	default:
		return false
	}
	if trigger == lifecycle.TriggerPut {
		return bodyIs(raw, id) && rd.saysInactive(rt, active, raw)
	}
	if wantMessage(raw, patchURN) != nil {
		return false
	}
	inactive := false
	for key, value := range raw {
		if !strings.EqualFold(key, "Operations") {
			continue
		}
		for _, v := range listOf(value) {
			members, _ := v.(map[string]any)
			o, err := parseOperation(members)
			if err != nil || o.op == "remove" {
				continue
			}
			inactive = rd.afterOperation(rt, active, o, inactive)
		}
	}
	return inactive
}

// bodyIs reports whether a body has no id, or the id of the resource.
func bodyIs(raw map[string]any, id uuid.UUID) bool {
	bodyID, ok := raw["id"].(string)
	return !ok || bodyID == "" || strings.EqualFold(bodyID, id.String())
}

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
