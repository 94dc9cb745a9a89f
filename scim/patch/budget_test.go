package patch

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/scim/schema"
)

// TestPatch_HasABudgetOfComparisons checks that the comparisons of a PATCH are limited, not
// only its size.
func TestPatch_HasABudgetOfComparisons(t *testing.T) {
	rt := userType()
	emails := make([]any, schema.MaxElements)
	for n := range emails {
		emails[n] = schema.Object{"value": fmt.Sprintf("u%d@example.com", n), "type": "work"}
	}
	filter := "emails[" + strings.Repeat(`value co "zz" or `, 10) + `value co "zz"]`
	for name, o := range map[string]Operation{
		"value filters":      {Op: "remove", Path: filter, HasPath: true},
		"filtered elements":  {Op: "replace", Path: filter + ".type", HasPath: true, Value: "home", HasValue: true},
		"additions to lists": {Op: "add", Path: "emails", HasPath: true, Value: []any{map[string]any{"value": "x@example.com"}}, HasValue: true},
	} {
		t.Run(name, func(t *testing.T) {
			operations := make([]Operation, MaxOperations)
			for n := range operations {
				operations[n] = o
			}
			_, _, err := Apply(rt, Reader{}, schema.Object{"userName": "u", "emails": emails}, operations, nil)
			var violation *schema.Error
			if !errors.As(err, &violation) || violation.Kind != schema.TooMany {
				t.Errorf("got %v, want tooMany", err)
			}
			if _, _, err := Apply(rt, Reader{}, schema.Object{"userName": "u", "emails": emails[:len(emails)-1]}, operations[:1], nil); err != nil {
				t.Errorf("one such operation: %v", err)
			}
		})
	}
}

func userType() *schema.ResourceType {
	for _, rt := range schema.ResourceTypes(nil) {
		if rt.Name == "User" {
			return rt
		}
	}
	return nil
}
