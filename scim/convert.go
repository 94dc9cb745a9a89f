package scim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
)

// toResource splits an Object into document, indexed columns and edges.
func toResource(rt *ResourceType, o Object) (*directory.Resource, error) {
	r := &directory.Resource{Type: rt.Name}
	document := Object{"schemas": schemasOf(rt, o)}
	for name, value := range o {
		a := attribute(rt.Schema.Attributes, name)
		switch {
		case a != nil && a.edge:
			edges, err := toEdges(a, value)
			if err != nil {
				return nil, err
			}
			r.Edges = append(r.Edges, edges...)
		case a != nil && a.Returned == Never:
			// A password is never stored: nobody logs in here.
		default:
			document[name] = value
		}
	}
	r.ExternalID, _ = o["externalId"].(string)
	if active, ok := o["active"].(bool); ok {
		r.Active = &active
	}
	if rt.unique != "" {
		name, _ := o[rt.unique].(string)
		r.UniqueName = directory.Fold(name)
		r.Display = name
	}
	if display, ok := o["displayName"].(string); ok && display != "" {
		r.Display = display
	}
	for name, value := range map[string]string{rt.unique: r.UniqueName, "externalId": r.ExternalID} {
		if len(value) > maxName {
			return nil, badRequest(invalidValue, "%s is longer than %d bytes", name, maxName)
		}
	}
	var err error
	if r.Document, err = json.Marshal(document); err != nil {
		return nil, fmt.Errorf("encode the document: %w", err)
	}
	return r, nil
}

// schemasOf lists the core schema and the extensions that hold something.
func schemasOf(rt *ResourceType, o Object) []any {
	urns := []any{rt.Schema.ID}
	for _, extension := range rt.Extensions {
		if o[extension.ID] != nil {
			urns = append(urns, extension.ID)
		}
	}
	return urns
}

func toEdges(a *Attribute, value any) ([]directory.Edge, error) {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	var edges []directory.Edge
	seen := make(map[uuid.UUID]bool, len(list))
	for _, v := range list {
		object, _ := v.(Object)
		text, _ := object["value"].(string)
		id, err := uuid.Parse(text)
		if err != nil {
			return nil, &directory.UnknownTargetError{Attribute: a.Name, Value: text}
		}
		if !seen[id] {
			seen[id] = true
			edges = append(edges, directory.Edge{Attribute: a.Name, Target: id})
		}
	}
	return edges, nil
}

// toObject is the inverse: the whole resource as PATCH sees it.
func toObject(rt *ResourceType, r *directory.Resource) (Object, error) {
	var o Object
	d := json.NewDecoder(bytes.NewReader(r.Document))
	d.UseNumber()
	if err := d.Decode(&o); err != nil {
		return nil, fmt.Errorf("decode the document of %s: %w", r.ID, err)
	}
	delete(o, "schemas")
	for _, e := range r.Edges {
		a := attribute(rt.Schema.Attributes, e.Attribute)
		element := Object{"value": e.Target.String(), "type": e.Type, "display": e.Display}
		if !a.MultiValued {
			o[a.Name] = element
			continue
		}
		list, _ := o[a.Name].([]any)
		o[a.Name] = append(list, element)
	}
	return o, nil
}

// etag is a resource's version (RFC 7644 section 3.14).
func etag(r *directory.Resource) string { return fmt.Sprintf(`W/"%d"`, r.Version) }

// render writes a resource as clients read it: the stored document as it is,
// with what the server adds in front.
func (rt *ResourceType) render(base string, r *directory.Resource) []byte {
	var b bytes.Buffer
	b.Grow(len(r.Document) + 512)
	fmt.Fprintf(&b, `{"id":"%s","meta":{"resourceType":"%s","created":"%s","lastModified":"%s","location":%s,"version":%s}`,
		r.ID, rt.Name, r.Created.UTC().Format(timeFormat), r.Modified.UTC().Format(timeFormat), quote(rt.location(base, r.ID)), quote(etag(r)))
	for i := range rt.Schema.Attributes {
		a := &rt.Schema.Attributes[i]
		if a.edge {
			renderEdges(&b, base, a, r.Edges)
		}
	}
	if len(r.Groups) > 0 && attribute(rt.Schema.Attributes, "groups") != nil {
		renderGroups(&b, base, r.Groups)
	}
	b.WriteByte(',')
	b.Write(r.Document[1:])
	return b.Bytes()
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

func (rt *ResourceType) location(base string, id uuid.UUID) string {
	return base + rt.Endpoint + "/" + id.String()
}

func renderEdges(b *bytes.Buffer, base string, a *Attribute, edges []directory.Edge) {
	n := 0
	for _, e := range edges {
		if e.Attribute != a.Name {
			continue
		}
		switch {
		case n > 0:
			b.WriteByte(',')
		case a.MultiValued:
			fmt.Fprintf(b, `,"%s":[`, a.Name)
		default:
			fmt.Fprintf(b, `,"%s":`, a.Name)
		}
		n++
		fmt.Fprintf(b, `{"value":"%s","$ref":%s,"type":"%s","display":%s}`,
			e.Target, quote(base+"/"+e.Type+"s/"+e.Target.String()), e.Type, quote(e.Display))
	}
	if n > 0 && a.MultiValued {
		b.WriteByte(']')
	}
}

func renderGroups(b *bytes.Buffer, base string, groups []directory.Edge) {
	b.WriteString(`,"groups":[`)
	for i, g := range groups {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, `{"value":"%s","$ref":%s,"type":"direct","display":%s}`,
			g.Target, quote(base+"/Groups/"+g.Target.String()), quote(g.Display))
	}
	b.WriteByte(']')
}

func quote(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}
