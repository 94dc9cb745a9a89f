package scim

import (
	"fmt"
	"slices"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/internal/textkey"
)

// key returns the comparison key of one of the attribute's strings.
func (a *Attribute) key(text string) string {
	if a.CaseExact {
		return textkey.Exact(text)
	}
	return textkey.Fold(text)
}

// fold returns a copy of a stored document with comparison keys in place of its strings.
func fold(rt *ResourceType, document Object) Object {
	out := make(Object, len(document))
	for name, value := range document {
		if extension := rt.extension(name); extension != nil {
			if inner, ok := value.(Object); ok {
				out[name] = foldAll(extension.Attributes, inner)
			}
			continue
		}
		out[name] = foldMember(rt.Schema.Attributes, name, value)
	}
	return out
}

func foldAll(attributes []Attribute, o Object) Object {
	out := make(Object, len(o))
	for name, value := range o {
		out[name] = foldMember(attributes, name, value)
	}
	return out
}

func foldMember(attributes []Attribute, name string, value any) any {
	a := attribute(attributes, name)
	if a == nil { // the tenant has deleted the schema: nothing compares the value
		return value
	}
	return foldValue(a, value)
}

func foldValue(a *Attribute, value any) any {
	switch v := value.(type) {
	case string:
		if a.Type == TypeString || a.Type == TypeReference {
			return a.key(v)
		}
	case Object:
		return foldAll(a.SubAttributes, v)
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			out[i] = foldValue(a, element)
		}
		return out
	}
	return value
}

// NewKeyer returns the keyer of a tenant with these custom schemas.
func NewKeyer(declared []tenant.Schema) (directory.Keyer, error) {
	extensions, err := parseDeclared(declared)
	if err != nil {
		return nil, err
	}
	types := ResourceTypes(extensions)
	return func(resourceType string, document []byte) (directory.Keys, error) {
		i := slices.IndexFunc(types, func(rt *ResourceType) bool { return rt.Name == resourceType })
		if i < 0 {
			return directory.Keys{}, fmt.Errorf("unknown resource type %q", resourceType)
		}
		object, err := parseObject(document)
		if err != nil {
			return directory.Keys{}, err
		}
		r, err := reader{}.toResource(types[i], object)
		if err != nil {
			return directory.Keys{}, err
		}
		return directory.Keys{
			UniqueName: r.UniqueName, ExternalID: r.ExternalID, Folded: r.Folded, Unique: r.Unique,
		}, nil
	}, nil
}
