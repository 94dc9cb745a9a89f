package patch

import (
	"maps"

	"github.com/leaverhq/leaver/scim/schema"
)

// set is the list of a multi-valued attribute without duplicates (RFC 7643 section 2.4).
// Elements are duplicates if they have the same value and type or, without a value, the same
// members.
type set struct {
	attribute *schema.Attribute
	values    []any
	at        map[string]int
}

func newSet(a *schema.Attribute, values []any) *set {
	s := &set{attribute: a, at: make(map[string]int, len(values))}
	for _, v := range values {
		s.add(v)
	}
	return s
}

// add adds v, or merges its sub-attributes into the existing element with the same value and
// type. It returns that element and reports whether the list changed.
func (s *set) add(v any) (element any, changed bool) {
	key := s.key(v)
	i, found := s.at[key]
	if !found {
		s.at[key] = len(s.values)
		s.values = append(s.values, v)
		return v, true
	}
	have, ok := s.values[i].(schema.Object)
	if !ok {
		return s.values[i], false
	}
	for name, value := range v.(schema.Object) {
		if have[name] != value {
			have[name], changed = value, true
		}
	}
	return have, changed
}

func (s *set) key(v any) string {
	object, ok := v.(schema.Object)
	if !ok || object["value"] == nil {
		return string(schema.AppendValue(nil, schema.FoldValue(s.attribute, v)))
	}
	identity := maps.Clone(object)
	maps.DeleteFunc(identity, func(name string, _ any) bool {
		return name != "value" && (name != "type" || s.attribute.Edge)
	})
	return string(schema.AppendValue(nil, schema.FoldValue(s.attribute, identity)))
}
