package patch

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/leaverhq/leaver/scim/schema"
)

// Names and values that identity providers use for SCIM's active. Names are compared in
// lower case and without the separators '_' and '-'.
var (
	activeNames = []string{
		"active", "isactive", "useractive", "enabled", "isenabled", "accountenabled", "userenabled",
	}
	inactiveNames = []string{
		"inactive", "disabled", "isdisabled", "accountdisabled", "suspended", "issuspended",
		"deactivated", "isdeactivated", "deprovisioned", "terminated", "isterminated", "archived", "isarchived",
		"locked", "islocked", "accountlocked", "deleted", "isdeleted", "issoftdeleted",
	}
	statusNames = []string{
		"status", "accountstatus", "userstatus", "employeestatus", "employmentstatus",
		"state", "accountstate", "userstate",
	}
	inactiveStates = []string{
		"inactive", "disabled", "suspended", "deactivated", "deprovisioned", "terminated", "archived",
		"locked", "deleted", "staged", "off", "left",
	}
)

// misdirected returns an error for an unknown attribute that is meant to deactivate. If it
// were ignored like other unknown attributes, the identity provider would report success
// and the principal would stay active.
func misdirected(rt *schema.ResourceType, name string, value any) error {
	if schema.FindAttribute(rt.Schema.Attributes, "active") == nil {
		return nil
	}
	// The object of an unknown schema.
	if members, ok := value.(map[string]any); ok && strings.HasPrefix(strings.ToLower(name), "urn:") {
		for inner, v := range members {
			if err := misdirected(rt, inner, v); err != nil {
				return err
			}
		}
		return nil
	}
	if !deactivates(name, unwrapped(value)) {
		return nil
	}
	return schema.Errorf(schema.InvalidPath,
		"%s has no attribute %q: to deactivate, map it to the attribute active", rt.Name, schema.Clip(name))
}

func deactivates(name string, value any) bool {
	if i := strings.LastIndexAny(name, ".:"); i >= 0 {
		name = name[i+1:]
	}
	name = strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))
	text := ""
	switch v := value.(type) {
	case bool:
		text = strconv.FormatBool(v)
	case json.Number:
		text = v.String()
	case string:
		text = strings.ToLower(strings.TrimSpace(v))
	}
	no := slices.Contains([]string{"false", "0", "no", "off"}, text)
	switch {
	case slices.Contains(activeNames, name):
		return no || slices.Contains(inactiveStates, text)
	case slices.Contains(inactiveNames, name):
		return slices.Contains([]string{"true", "1", "yes", "on"}, text)
	case slices.Contains(statusNames, name):
		return no || slices.Contains(inactiveStates, text)
	}
	return false
}
