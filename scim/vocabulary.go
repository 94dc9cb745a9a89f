package scim

import (
	"fmt"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/mapping"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim/schema"
)

// Vocabulary returns the schema attributes that mapping rules may use: those that are
// stored in documents and not secret.
func Vocabulary(declared []tenant.Schema) (mapping.Vocabulary, error) {
	v := mapping.Vocabulary{EnterpriseURN: schema.EnterpriseURN, Claims: make(map[string][]mapping.Attribute)}
	for _, rt := range schema.ResourceTypes(nil) {
		switch rt.Name {
		case directory.TypeUser:
			v.User = words(rt.Schema.Attributes)
			for _, extension := range rt.Extensions {
				if extension.ID == schema.EnterpriseURN {
					v.Enterprise = words(extension.Attributes)
				}
			}
		case directory.TypeAgent:
			v.Agent = words(rt.Schema.Attributes)
		}
	}
	for _, d := range declared {
		if d.ResourceType == directory.TypeGroup {
			continue
		}
		extension, err := schema.ParseExtension(d.ResourceType, d.Definition)
		if err != nil {
			return v, fmt.Errorf("read schema %s: %w", d.URN, err)
		}
		v.Claims[extension.Schema.ID] = words(extension.Schema.Attributes)
	}
	return v, nil
}

func words(attributes []schema.Attribute) []mapping.Attribute {
	var found []mapping.Attribute
	for _, a := range attributes {
		if a.Edge || a.Discarded || a.Returned == schema.Never ||
			(a.Mutability == schema.ReadOnly && a.Type == schema.TypeComplex) {
			continue
		}
		found = append(found, mapping.Attribute{
			Name: a.Name, Type: mapping.Type(a.Type), MultiValued: a.MultiValued, Sub: words(a.SubAttributes),
		})
	}
	return found
}
