package scim

import "maps"

// set is the list of a multi-valued attribute in which each element is once (RFC 7643
// section 2.4): elements of one value and type are one, and of two that have no value, those
// that hold the same.
type set struct {
	attribute *Attribute
	values    []any
	at        map[string]int
}

func newSet(a *Attribute, values []any) *set {
	s := &set{attribute: a, at: make(map[string]int, len(values))}
	for _, v := range values {
		s.add(v)
	}
	return s
}

// add returns the element that stands for v, and whether v changed the list. Where there is
// one of its value and type, it gets the other sub-attributes of v.
func (s *set) add(v any) (element any, changed bool) {
	key := s.key(v)
	i, found := s.at[key]
	if !found {
		s.at[key] = len(s.values)
		s.values = append(s.values, v)
		return v, true
	}
	have, ok := s.values[i].(Object)
	if !ok {
		return s.values[i], false
	}
	for name, value := range v.(Object) {
		if have[name] != value {
			have[name], changed = value, true
		}
	}
	return have, changed
}

func (s *set) key(v any) string {
	object, ok := v.(Object)
	if !ok || object["value"] == nil {
		return string(appendValue(nil, foldValue(s.attribute, v)))
	}
	identity := maps.Clone(object)
	maps.DeleteFunc(identity, func(name string, _ any) bool { return name != "value" && (name != "type" || s.attribute.edge) })
	return string(appendValue(nil, foldValue(s.attribute, identity)))
}
