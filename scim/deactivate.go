package scim

import (
	"errors"
	"net/http"
	"slices"
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
	var duplicate *schema.DuplicateNameError
	if errors.As(err, &duplicate) && slices.ContainsFunc(duplicate.Conflicting, decides) {
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

// decides reports whether a name, in lower case, is part of what a body says about a deactivation. With two values for
// it, a body does not say which of them is meant.
func decides(name string) bool {
	return slices.Contains([]string{"active", "operations", "op", "path", "value", "id", "schemas"}, name) ||
		strings.Contains(name, ":") // of a schema, or of an attribute with its schema
}

// bodyIs reports whether a body has no id, or the id of the resource.
func bodyIs(raw map[string]any, id uuid.UUID) bool {
	for name, value := range raw {
		if text, ok := value.(string); ok && strings.EqualFold(name, "id") && text != "" {
			return strings.EqualFold(text, id.String())
		}
	}
	return true
}
