package patch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/scim/filter"
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

// TestPatch_LooksAtFewMembers counts what the database is asked for by value filters on members.
func TestPatch_LooksAtFewMembers(t *testing.T) {
	operation := Operation{Op: "remove", Path: `members[display co "x" or display co "y"]`, HasPath: true}
	asked := 0
	match := func([]uuid.UUID, filter.Condition) ([]uuid.UUID, error) { asked++; return nil, nil }
	var violation *schema.Error
	_, _, err := Apply(schema.GroupType(), Reader{}, schema.Object{"displayName": "g"}, slices.Repeat([]Operation{operation}, 1000), match)
	if !errors.As(err, &violation) || violation.Kind != schema.TooMany || asked == 0 || asked > 50 {
		t.Errorf("asked %d times, and got %v, want tooMany", asked, err)
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
