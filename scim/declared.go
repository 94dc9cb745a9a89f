package scim

import (
	"encoding/json"
	"fmt"

	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim/schema"
)

// CheckDeclared validates a tenant's schema against its existing ones and returns it with
// its URN and all defaults set. It returns a [schema.DeclarationError] if the schema is
// invalid.
func CheckDeclared(declared tenant.Schema, existing []tenant.Schema) (tenant.Schema, error) {
	e, err := schema.ParseExtension(declared.ResourceType, declared.Definition)
	if err != nil {
		return declared, err
	}
	others, err := parseDeclared(existing)
	if err != nil {
		return declared, err
	}
	if err := schema.CheckExtension(e, others); err != nil {
		return declared, err
	}
	declared.URN = e.Schema.ID
	if declared.Definition, err = json.Marshal(e.Schema); err != nil {
		return declared, fmt.Errorf("encode schema %s: %w", declared.URN, err)
	}
	return declared, nil
}

func parseDeclared(declared []tenant.Schema) ([]*schema.Extension, error) {
	var extensions []*schema.Extension
	for _, d := range declared {
		e, err := schema.ParseExtension(d.ResourceType, d.Definition)
		if err != nil {
			return nil, fmt.Errorf("stored schema %s: %w", d.URN, err)
		}
		extensions = append(extensions, e)
	}
	return extensions, nil
}
