package scim

import (
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/scim/schema"
)

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

func location(rt *schema.ResourceType, base string, id uuid.UUID) string {
	return base + rt.Endpoint + "/" + id.String()
}

// render encodes a resource for a response: the attributes that the server adds, then the
// stored document unchanged. It omits the members of a group.
func render(rt *schema.ResourceType, base string, r *directory.Resource) []byte {
	b := make([]byte, 0, len(r.Document)+640)
	b = append(b, `{"schemas":["`...)
	b = append(b, rt.Schema.ID...)
	for _, urn := range r.Extensions {
		b = append(append(b, `","`...), urn...)
	}
	if r.Restricted() {
		b = append(append(b, `","`...), schema.LifecycleURN...)
	}
	b = append(b, `"],"id":"`...)
	b = appendID(b, r.ID)
	b = append(append(append(b, `","meta":{"resourceType":"`...), rt.Name...), `","created":"`...)
	b = r.Created.UTC().AppendFormat(b, timeFormat)
	b = r.Modified.UTC().AppendFormat(append(b, `","lastModified":"`...), timeFormat)
	b = schema.AppendString(append(b, `","location":`...), location(rt, base, r.ID))
	b = append(strconv.AppendInt(append(b, `,"version":"W/\"`...), r.Version, 10), `\""}`...)
	for i := range rt.Schema.Attributes {
		if a := &rt.Schema.Attributes[i]; a.Edge && !a.Unbounded {
			b = appendEdges(b, base, a, r.Edges)
		}
	}
	if len(r.Groups) > 0 && schema.FindAttribute(rt.Schema.Attributes, "groups") != nil {
		b = append(b, `,"groups":`...)
		separator := byte('[')
		for _, g := range r.Groups {
			l := link{id: g.Target, endpoint: "/Groups", kind: g.Type, display: g.Display}
			b = appendLink(append(b, separator), base, l, nil)
			separator = ','
		}
		b = append(b, ']')
	}
	if r.Restricted() {
		b = appendRestriction(b, r.Restriction)
	}
	if len(r.Document) <= len("{}") {
		return append(b, '}')
	}
	return append(append(b, ','), r.Document[1:]...)
}

func appendEdges(b []byte, base string, a *schema.Attribute, edges []directory.Edge) []byte {
	n := 0
	for _, e := range edges {
		if e.Attribute != a.Name {
			continue
		}
		if n++; n > 1 {
			b = append(b, ',')
		} else {
			b = append(append(append(b, `,"`...), a.Name...), `":`...)
			if a.MultiValued {
				b = append(b, '[')
			}
		}
		b = appendLink(b, base, linkOf(e), nil)
	}
	if n > 0 && a.MultiValued {
		b = append(b, ']')
	}
	return b
}

// link is the target of an edge in a response.
type link struct {
	id             uuid.UUID
	endpoint, kind string
	display        string
}

func linkOf(e directory.Edge) link {
	return link{id: e.Target, endpoint: "/" + e.Type + "s", kind: e.Type, display: e.Display}
}

// appendLink appends a link with the sub-attributes that keep selects; nil selects all.
func appendLink(b []byte, base string, l link, keep func(sub string) bool) []byte {
	b = append(b, '{')
	start := len(b)
	member := func(name string) bool {
		if keep != nil && !keep(name) {
			return false
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), name...), `":`...)
		return true
	}
	if member("value") {
		b = append(appendID(append(b, '"'), l.id), '"')
	}
	if member("$ref") {
		b = schema.AppendString(b, base+l.endpoint+"/"+l.id.String())
	}
	if member("type") {
		b = schema.AppendString(b, l.kind)
	}
	if l.display != "" && member("display") {
		b = schema.AppendString(b, l.display)
	}
	return append(b, '}')
}

func appendRestriction(b []byte, x *directory.Restriction) []byte {
	b = append(append(append(b, `,"`...), schema.LifecycleURN...), `":{"restrictedSince":"`...)
	b = x.Since.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(append(append(b, `","cause":"`...), x.Cause...), `","survivors":`...)
	b = strconv.AppendInt(b, int64(x.Survivors), 10)
	if x.WorkflowID != "" {
		b = schema.AppendString(append(b, `,"workflowId":`...), x.WorkflowID)
	}
	return append(b, '}')
}

func appendID(b []byte, id uuid.UUID) []byte {
	text, _ := id.MarshalText() // never fails
	return append(b, text...)
}
