package filter_test

import (
	"fmt"

	"github.com/leaverhq/leaver/scim/filter"
	"github.com/leaverhq/leaver/scim/schema"
)

// A filter is parsed against a resource type, and evaluated over a resource as a client reads it.
func ExampleParse() {
	condition, err := filter.Parse(schema.UserType(), `userName sw "ADA" and emails[type eq "work"].value ew "@example.com"`)
	if err != nil {
		panic(err)
	}
	for _, address := range []string{"ada@example.com", "ada@example.org"} {
		emails := []any{map[string]any{"type": "work", "value": address}}
		fmt.Println(address, filter.Match(condition, map[string]any{"userName": "ada", "emails": emails}))
	}
	_, err = filter.Parse(schema.UserType(), `shoeSize eq 38`)
	fmt.Println(err)
	// Output:
	// ada@example.com true
	// ada@example.org false
	// filter: User has no filterable attribute "shoeSize"
}
