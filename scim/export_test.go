package scim

import (
	"encoding/json"

	"github.com/leaverhq/leaver/internal/directory"
)

// Match evaluates a filter in memory over a resource as a client reads it.
func Match(rt *ResourceType, text string, resource map[string]any) (bool, error) {
	condition, err := parseFilter(rt, text)
	if err != nil {
		return false, err
	}
	encoded, err := json.Marshal(resource)
	if err != nil {
		return false, err
	}
	object, err := parseObject(encoded) // keeps numbers as written
	return directory.Matches(condition, object), err
}
