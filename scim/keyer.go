package scim

import (
	"fmt"
	"slices"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim/patch"
	"github.com/leaverhq/leaver/scim/schema"
)

// NewKeyer returns the keyer of a tenant with these custom schemas.
func NewKeyer(declared []tenant.Schema) (directory.Keyer, error) {
	extensions, err := parseDeclared(declared)
	if err != nil {
		return nil, err
	}
	types := schema.ResourceTypes(extensions)
	return func(resourceType string, document []byte) (directory.Keys, error) {
		i := slices.IndexFunc(types, func(rt *schema.ResourceType) bool { return rt.Name == resourceType })
		if i < 0 {
			return directory.Keys{}, fmt.Errorf("unknown resource type %q", resourceType)
		}
		object, err := schema.ParseObject(document)
		if err != nil {
			return directory.Keys{}, err
		}
		r, err := toResource(patch.Reader{}, types[i], object)
		if err != nil {
			return directory.Keys{}, err
		}
		return directory.Keys{
			UniqueName: r.UniqueName, ExternalID: r.ExternalID, Folded: r.Folded, Unique: r.Unique, Names: r.Names,
		}, nil
	}, nil
}
