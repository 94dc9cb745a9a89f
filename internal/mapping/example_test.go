package mapping_test

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/mapping"
)

// Rules derive entitlements from groups and attributes. A denying rule takes away what others grant.
func ExampleCompile() {
	rules, err := mapping.Compile(`
rules:
  - {group: "eng-*", team: Engineering, scopes: [deploy, read]}
  - {when: enterprise.department == "Engineering", role: developer}
  - {name: freeze, group: contractors, deny: true, scopes: [deploy]}
`, vocabulary)
	if err != nil {
		panic(err)
	}
	ada := mapping.Principal{
		ID: uuid.New(), Type: "User",
		Document: map[string]any{"urn:enterprise": map[string]any{"department": "Engineering"}},
		Groups:   []mapping.Group{{DisplayName: "eng-prod", Direct: true}, {DisplayName: "contractors", Direct: true}},
	}
	fmt.Println(slices.Sorted(maps.Keys(rules.Apply(ada).Entitlements)))
	_, err = mapping.Compile("rules:\n  - {when: user.shoeSize > 38, role: tall}\n", vocabulary)
	fmt.Println(err)
	// Output:
	// [role:developer scope:read team:Engineering]
	// line 2, column 16: rule "user.shoeSize > 38": undefined field 'shoeSize'
}
