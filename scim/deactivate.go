package scim

import (
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/scim/patch"
	"github.com/leaverhq/leaver/scim/schema"
)

// mustDeactivate reports whether a PUT or PATCH that failed with err must deactivate the
// principal anyway: the body deactivates it, and err is about another part of the body.
// Identity providers do not repeat a request that was answered 400, and the person has
// left. It returns false for a strict tenant, which gets the error.
func (h resourceHandler) mustDeactivate(
	r *http.Request, rt *schema.ResourceType, trigger lifecycle.Trigger, raw map[string]any, id uuid.UUID, err error,
) bool {
	rd := readerFor(r)
	active := schema.FindAttribute(rt.Schema.Attributes, "active")
	if rd.Strict || active == nil || raw == nil {
		return false
	}
	switch e := toError(err); {
	case e.Status == http.StatusBadRequest, e.Status == http.StatusRequestEntityTooLarge:
	case e.Status == http.StatusConflict && e.Type == schema.NotUnique:
	default:
		return false
	}
	if trigger == lifecycle.TriggerPut {
		return bodyIs(raw, id) && rd.SaysInactive(rt, active, raw)
	}
	inactive := false
	for key, value := range raw {
		if !strings.EqualFold(key, "Operations") {
			continue
		}
		for _, v := range schema.ListOf(value) {
			members, _ := v.(map[string]any)
			o, err := patch.ParseOperation(members)
			if err != nil || o.Op == "remove" {
				continue
			}
			inactive = rd.AfterOperation(rt, active, o, inactive)
		}
	}
	return inactive
}

// bodyIs reports whether a body has no id, or the id of the resource.
func bodyIs(raw map[string]any, id uuid.UUID) bool {
	bodyID, ok := raw["id"].(string)
	return !ok || bodyID == "" || strings.EqualFold(bodyID, id.String())
}
