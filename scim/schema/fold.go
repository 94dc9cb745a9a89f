package schema

import (
	"github.com/leaverhq/leaver/internal/textkey"
)

// Key returns the comparison key of one of the attribute's strings.
func (a *Attribute) Key(text string) string {
	if a.CaseExact {
		return textkey.Exact(text)
	}
	return textkey.Fold(text)
}

// FoldDocument returns a copy of a stored document with comparison keys in place of its strings.
func FoldDocument(rt *ResourceType, document Object) Object {
	out := make(Object, len(document))
	for name, value := range document {
		if extension := rt.Extension(name); extension != nil {
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
	a := FindAttribute(attributes, name)
	if a == nil { // the tenant has deleted the schema: nothing compares the value
		return value
	}
	return FoldValue(a, value)
}

// FoldValue returns a value of an attribute with comparison keys in place of its strings.
func FoldValue(a *Attribute, value any) any {
	switch v := value.(type) {
	case string:
		if a.Type == TypeString || a.Type == TypeReference {
			return a.Key(v)
		}
	case Object:
		return foldAll(a.SubAttributes, v)
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			out[i] = FoldValue(a, element)
		}
		return out
	}
	return value
}
