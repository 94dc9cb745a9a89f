package scim

import (
	"fmt"
	"strings"
	"testing"
)

// TestPatch_HasABudgetOfComparisons checks that the comparisons of a PATCH are limited, not
// only its size.
func TestPatch_HasABudgetOfComparisons(t *testing.T) {
	rt := userType()
	emails := make([]any, maxElements)
	for n := range emails {
		emails[n] = Object{"value": fmt.Sprintf("u%d@example.com", n), "type": "work"}
	}
	filter := "emails[" + strings.Repeat(`value co "zz" or `, 10) + `value co "zz"]`
	for name, o := range map[string]operation{
		"value filters":      {op: "remove", path: filter, hasPath: true},
		"filtered elements":  {op: "replace", path: filter + ".type", hasPath: true, value: "home", hasValue: true},
		"additions to lists": {op: "add", path: "emails", hasPath: true, value: []any{map[string]any{"value": "x@example.com"}}, hasValue: true},
	} {
		t.Run(name, func(t *testing.T) {
			operations := make([]operation, maxOperations)
			for n := range operations {
				operations[n] = o
			}
			_, _, err := patch(rt, reader{}, Object{"userName": "u", "emails": emails}, operations, nil)
			if e := toError(err); err == nil || e.Status != 400 || e.Type != tooMany {
				t.Errorf("got %v, want 400 tooMany", err)
			}
			if _, _, err := patch(rt, reader{}, Object{"userName": "u", "emails": emails[:len(emails)-1]}, operations[:1], nil); err != nil {
				t.Errorf("one such operation: %v", err)
			}
		})
	}
}

func userType() *ResourceType {
	for _, rt := range ResourceTypes(nil) {
		if rt.Name == "User" {
			return rt
		}
	}
	return nil
}
