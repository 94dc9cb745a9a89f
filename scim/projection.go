package scim

import (
	"encoding/json"
	"net/url"
	"strings"
)

// projection is what `attributes` or `excludedAttributes` leave of a resource
// (RFC 7644 section 3.9). schemas, id and meta always stay.
type projection struct {
	rt       *ResourceType
	include  []string // canonical paths: name, name.sub, urn, urn:name, urn:name.sub
	exclude  []string
	anything bool
}

func parseProjection(rt *ResourceType, query url.Values) (projection, error) {
	p := projection{rt: rt}
	include, exclude := query.Get("attributes"), query.Get("excludedAttributes")
	if include != "" && exclude != "" {
		return p, badRequest(invalidValue, "give attributes or excludedAttributes, not both")
	}
	p.include, p.exclude = splitNames(include), splitNames(exclude)
	p.anything = include == "" && exclude == ""
	return p, nil
}

func splitNames(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, strings.ToLower(name))
		}
	}
	return names
}

// omits tells whether the attribute is not asked for at all, so that it need
// not be read from the database.
func (p projection) omits(name string) bool {
	name = strings.ToLower(name)
	for _, excluded := range p.exclude {
		if p.local(excluded) == name {
			return true
		}
	}
	if len(p.include) == 0 {
		return false
	}
	for _, included := range p.include {
		if head, _, _ := strings.Cut(p.local(included), "."); head == name {
			return false
		}
	}
	return true
}

// local takes the core schema's URN off a name.
func (p projection) local(name string) string {
	if schema, rest := p.rt.splitURN(name); schema == p.rt.Schema {
		return rest
	}
	return name
}

func (p projection) apply(resource []byte) ([]byte, error) {
	if p.anything {
		return resource, nil
	}
	var full map[string]json.RawMessage
	if err := json.Unmarshal(resource, &full); err != nil {
		return nil, err
	}
	out := make(map[string]json.RawMessage, len(full))
	for name, value := range full {
		if name == "schemas" || name == "id" || name == "meta" {
			out[name] = value
			continue
		}
		kept, err := p.member(name, value)
		if err != nil {
			return nil, err
		}
		if kept != nil {
			out[name] = kept
		}
	}
	return json.Marshal(out)
}

// member projects one top-level member: an attribute, or an extension's object.
func (p projection) member(name string, value json.RawMessage) (json.RawMessage, error) {
	if p.rt.extension(name) != nil {
		return p.inside(name, ":", value)
	}
	return p.inside(name, ".", value)
}

// inside keeps or drops a member as a whole, or by its own members.
func (p projection) inside(name, separator string, value json.RawMessage) (json.RawMessage, error) {
	name = strings.ToLower(name)
	wanted := len(p.include) == 0
	subs := make(map[string]bool)
	names := p.include
	if wanted {
		names = p.exclude
	}
	for _, path := range names {
		path = p.local(path)
		if path == name {
			if wanted {
				return nil, nil
			}
			return value, nil
		}
		if rest, ok := strings.CutPrefix(path, name+separator); ok {
			head, _, _ := strings.Cut(rest, ".")
			subs[head] = true
		}
	}
	if len(subs) == 0 {
		if wanted {
			return value, nil
		}
		return nil, nil
	}
	return filterMembers(value, func(sub string) bool { return subs[strings.ToLower(sub)] != wanted })
}

// filterMembers keeps some members of an object, or of each object of a list.
func filterMembers(value json.RawMessage, keep func(string) bool) (json.RawMessage, error) {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) == nil {
		for i := range list {
			filtered, err := filterMembers(list[i], keep)
			if err != nil {
				return nil, err
			}
			list[i] = filtered
		}
		return json.Marshal(list)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(value, &object); err != nil {
		return value, nil //nolint:nilerr // a simple value has no members
	}
	for name := range object {
		if !keep(name) {
			delete(object, name)
		}
	}
	return json.Marshal(object)
}
