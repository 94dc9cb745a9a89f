package scim

import (
	"encoding/json"

	"github.com/leaverhq/leaver/scim/filter"
	"github.com/leaverhq/leaver/scim/schema"
)

// Match evaluates a filter in memory over a resource as a client reads it.
func Match(rt *schema.ResourceType, text string, resource map[string]any) (bool, error) {
	condition, err := filter.Parse(rt, text)
	if err != nil {
		return false, err
	}
	encoded, err := json.Marshal(resource)
	if err != nil {
		return false, err
	}
	object, err := schema.ParseObject(encoded) // keeps numbers as written
	return filter.Match(condition, object), err
}
