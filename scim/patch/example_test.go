package patch_test

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/scim/filter"
	"github.com/leaverhq/leaver/scim/patch"
	"github.com/leaverhq/leaver/scim/schema"
)

// A client's PATCH is parsed, and applied to a copy of the resource by its schema.
func ExampleApply() {
	body, err := schema.ParseObject([]byte(`{"Operations": [
		{"op": "Replace", "path": "active", "value": "False"},
		{"op": "add", "path": "emails[type eq \"work\"].value", "value": "ada@example.com"}]}`))
	if err != nil {
		panic(err)
	}
	operations, err := patch.Parse(body)
	if err != nil {
		panic(err)
	}
	noMembers := func([]uuid.UUID, filter.Condition) ([]uuid.UUID, error) { return nil, nil }
	before := schema.Object{"userName": "ada", "active": true}
	after, _, err := patch.Apply(schema.UserType(), patch.Reader{}, before, operations, noMembers)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(schema.AppendValue(nil, after)))
	// Output: {"active":false,"emails":[{"type":"work","value":"ada@example.com"}],"userName":"ada"}
}
