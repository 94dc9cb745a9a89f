package scim

import (
	"encoding/json"
	"strings"

	"github.com/leaverhq/leaver/scim/schema"
)

// projection selects the attributes of a response (RFC 7644 section 3.9) by each
// attribute's `returned` and the request's `attributes` or `excludedAttributes`. schemas
// and id are always returned.
type projection struct {
	rt       *schema.ResourceType
	names    map[string]subset // by canonical path; see key
	included bool              // names lists what to include, not what to exclude
}

// subset is an attribute as a whole, or some of its sub-attributes.
type subset struct {
	whole bool
	subs  map[string]bool // lower case
}

// newProjection resolves the names against the schemas and ignores unknown names.
func newProjection(rt *schema.ResourceType, attributes, excluded []string) (projection, error) {
	p := projection{rt: rt, included: len(attributes) > 0}
	if len(attributes) > 0 && len(excluded) > 0 {
		return p, badRequest(schema.InvalidValue, "attributes and excludedAttributes are mutually exclusive")
	}
	p.names = make(map[string]subset)
	for _, name := range append(attributes, excluded...) {
		p.name(name)
	}
	return p, nil
}

func (p projection) name(name string) {
	within, rest := p.rt.SplitURN(name)
	if rest == "" { // a bare URN: all of the schema
		for i := range within.Attributes {
			p.names[p.key(within, within.Attributes[i].Name)] = subset{whole: true}
		}
		return
	}
	head, sub, _ := strings.Cut(rest, ".")
	key := strings.ToLower(head)
	if !schema.IsCommon(head) {
		found, a := within, schema.FindAttribute(within.Attributes, head)
		if a == nil && rest == name {
			found, a = p.rt.Find(head)
		}
		if a == nil {
			return
		}
		key = p.key(found, a.Name)
	}
	have := p.names[key]
	if sub == "" {
		have.whole = true
	} else {
		if have.subs == nil {
			have.subs = make(map[string]bool)
		}
		have.subs[strings.ToLower(sub)] = true
	}
	p.names[key] = have
}

func (p projection) key(within *schema.Schema, name string) string {
	if within == p.rt.Schema {
		return strings.ToLower(name)
	}
	return strings.ToLower(within.ID + ":" + name)
}

// everything reports whether the projection leaves a resource unchanged.
func (p projection) everything() bool { return len(p.names) == 0 && !p.included && !p.rt.Hides }

// keeps reports whether the response contains an attribute, and which of its
// sub-attributes. If subs is nil, it contains all of them.
func (p projection) keeps(within *schema.Schema, a *schema.Attribute) (kept bool, subs func(string) bool) {
	asked, named := p.names[p.key(within, a.Name)]
	switch {
	case a.Returned == schema.Never:
		return false, nil
	case a.Returned == schema.Always: // regardless of the request, except for concealed sub-attributes
		asked, named = subset{whole: true}, p.included
	case p.included && !named, !p.included && a.Returned == schema.Request, !p.included && named && asked.whole:
		return false, nil
	}
	hides := false
	for i := range a.SubAttributes {
		hides = hides || a.SubAttributes[i].Concealed()
	}
	if !named && !hides || (named && asked.whole && p.included && !hides) {
		return true, nil
	}
	return true, func(name string) bool {
		sub := a.Sub(name)
		switch {
		case sub == nil || sub.Returned == schema.Never:
			return false
		case sub.Returned == schema.Always:
			return true
		case p.included:
			return asked.subs[strings.ToLower(name)] || (asked.whole && sub.Returned != schema.Request)
		}
		return sub.Returned != schema.Request && !asked.subs[strings.ToLower(name)]
	}
}

// omits reports whether the response does not contain the attribute, so it need not be read
// from the database.
func (p projection) omits(name string) bool {
	a := schema.FindAttribute(p.rt.Schema.Attributes, name)
	if a == nil {
		return true
	}
	kept, _ := p.keeps(p.rt.Schema, a)
	return !kept
}

func (p projection) apply(resource []byte) ([]byte, error) {
	if p.everything() {
		return resource, nil
	}
	var full map[string]json.RawMessage
	if err := json.Unmarshal(resource, &full); err != nil {
		return nil, err
	}
	out := make(map[string]json.RawMessage, len(full))
	for name, value := range full {
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

// metaAttribute returns the common attribute meta (RFC 7643 section 3.1).
func metaAttribute() schema.Attribute {
	return schema.AsReadOnly(schema.ComplexOf("meta", "", schema.Text("resourceType", ""), schema.Text("created", ""),
		schema.Text("lastModified", ""), schema.Text("location", ""), schema.Text("version", "")))
}

// member projects one top-level member: an attribute, or an extension's object.
func (p projection) member(name string, value json.RawMessage) (json.RawMessage, error) {
	if name == "schemas" || name == "id" {
		return value, nil
	}
	if extension := p.rt.Extension(name); extension != nil {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(value, &members); err != nil {
			return nil, err
		}
		for inner, v := range members {
			kept, err := p.attribute(extension, schema.FindAttribute(extension.Attributes, inner), v)
			if err != nil {
				return nil, err
			}
			if members[inner] = kept; kept == nil {
				delete(members, inner)
			}
		}
		if len(members) == 0 {
			return nil, nil
		}
		return json.Marshal(members)
	}
	a := schema.FindAttribute(p.rt.Schema.Attributes, name)
	if name == "meta" {
		meta := metaAttribute()
		a = &meta
	}
	return p.attribute(p.rt.Schema, a, value)
}

func (p projection) attribute(
	within *schema.Schema, a *schema.Attribute, value json.RawMessage,
) (json.RawMessage, error) {
	if a == nil {
		return nil, nil // of a deleted schema
	}
	kept, subs := p.keeps(within, a)
	switch {
	case !kept:
		return nil, nil
	case subs == nil:
		return value, nil
	}
	return filterMembers(value, subs)
}

// filterMembers keeps the members of an object, or of each object of a list, that keep
// selects. It returns nil if nothing is left.
func filterMembers(value json.RawMessage, keep func(string) bool) (json.RawMessage, error) {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) == nil {
		var left []json.RawMessage
		for _, element := range list {
			filtered, err := filterMembers(element, keep)
			if err != nil {
				return nil, err
			}
			if filtered != nil {
				left = append(left, filtered)
			}
		}
		if len(left) == 0 {
			return nil, nil
		}
		return json.Marshal(left)
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
	if len(object) == 0 {
		return nil, nil
	}
	return json.Marshal(object)
}
