package scim

import (
	"fmt"
	"strconv"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/textkey"
	"github.com/leaverhq/leaver/scim/patch"
	"github.com/leaverhq/leaver/scim/schema"
)

// toResource splits an Object into document, indexed columns and edges.
func toResource(rd patch.Reader, rt *schema.ResourceType, o schema.Object) (*directory.Resource, error) {
	r := &directory.Resource{Type: rt.Name, Members: patch.Delta{SkipUnknown: rd.SkipsMembers}}
	document := schema.Object{}
	for name, value := range o {
		a := schema.FindAttribute(rt.Schema.Attributes, name)
		switch {
		case a != nil && a.Edge:
			edges, unknown := toEdges(a, value)
			if len(unknown) > 0 && (!a.Unbounded || !rd.SkipsMembers) {
				return nil, &schema.UnknownTargetError{Attribute: a.Name, Value: unknown[0]}
			}
			r.Members.Skipped = append(r.Members.Skipped, unknown...)
			if !a.Unbounded {
				r.Edges = append(r.Edges, edges...)
				continue
			}
			for _, e := range edges {
				r.Members.Add(e.Target)
			}
		case a != nil && a.Discarded:
			// A password is never stored: users do not log in to leaver.
		default:
			document[name] = value
		}
	}
	externalID, _ := o["externalId"].(string)
	r.ExternalID = textkey.Exact(externalID)
	if active, ok := o["active"].(bool); ok {
		r.Active = &active
	}
	if rt.Unique != "" {
		name, _ := o[rt.Unique].(string)
		r.UniqueName = textkey.Fold(name)
		r.Display = name
	}
	if display, ok := o["displayName"].(string); ok && display != "" {
		r.Display = display
	}
	for name, value := range map[string]string{rt.Unique: r.UniqueName, "externalId": r.ExternalID} {
		if len(value) > schema.MaxName {
			return nil, schema.Errorf(schema.InvalidValue, "%s must be at most %d bytes, got %d", name, schema.MaxName,
				len(value))
		}
	}
	for _, extension := range rt.Extensions {
		if o[extension.ID] != nil {
			r.Extensions = append(r.Extensions, extension.ID)
		}
	}
	if validity, _ := o[schema.ValidityURN].(schema.Object); validity != nil {
		if text, ok := validity["validUntil"].(string); ok {
			until, err := schema.ParseTime(text)
			if err != nil {
				return nil, schema.Errorf(schema.InvalidValue,
					"validUntil must be a dateTime such as 2030-01-31T00:00:00Z, got %q", text)
			}
			r.ValidUntil = &until
		}
	}
	if err := uniqueValues(rt, o, r); err != nil {
		return nil, err
	}
	r.Names = namesIn(rt, o)
	r.Document = schema.AppendValue(nil, document)
	r.Folded = schema.AppendValue(nil, schema.FoldDocument(rt, document))
	return r, nil
}

// uniqueValues sets r.Unique to the keys of the unique attributes other than the unique name.
func uniqueValues(rt *schema.ResourceType, o schema.Object, r *directory.Resource) error {
	if len(rt.Uniques) == 0 {
		return nil
	}
	r.Unique = make(map[string]string)
	for _, a := range rt.Uniques {
		members := o
		if a.Schema != rt.Schema {
			members, _ = o[a.Schema.ID].(schema.Object)
		}
		if members[a.Name] == nil {
			continue
		}
		value := a.Key(fmt.Sprint(members[a.Name]))
		if len(value) > schema.MaxName {
			return schema.Errorf(schema.InvalidValue, "%s must be at most %d bytes, got %d", a.Name, schema.MaxName, len(value))
		}
		r.Unique[rt.Path(a.Schema, a.Attribute)] = value
	}
	return nil
}

// toEdges returns the edges of an attribute, and the values that are not the id of a resource.
func toEdges(a *schema.Attribute, value any) (edges []directory.Edge, unknown []string) {
	list := schema.ListOf(value)
	seen := make(map[uuid.UUID]bool, len(list))
	for _, v := range list {
		object, _ := v.(schema.Object)
		text, _ := object["value"].(string)
		id, err := uuid.Parse(text)
		if err != nil {
			unknown = append(unknown, schema.Clip(text))
			continue
		}
		if !seen[id] {
			seen[id] = true
			edges = append(edges, directory.Edge{Attribute: a.Name, Target: id})
		}
	}
	return edges, unknown
}

// toObject is the inverse of toResource. It returns the resource with its edges for PATCH.
func toObject(rt *schema.ResourceType, r *directory.Resource) (schema.Object, error) {
	o, err := schema.ParseObject(r.Document)
	if err != nil {
		// Not wrapped: a wrapped Error would be reported as the client's error.
		return nil, fmt.Errorf("read the stored document of %s: %s", r.ID, err.Error())
	}
	for _, e := range r.Edges {
		a := schema.FindAttribute(rt.Schema.Attributes, e.Attribute)
		element := schema.Object{"value": e.Target.String(), "type": e.Type, "display": e.Display}
		if !a.MultiValued {
			o[a.Name] = element
			continue
		}
		list, _ := o[a.Name].([]any)
		o[a.Name] = append(list, element)
	}
	return o, nil
}

// etag returns a resource's version (RFC 7644 section 3.14). It is weak: it does not change
// with the names of other resources or with the groups of a principal.
func etag(r *directory.Resource) string { return `W/"` + strconv.FormatInt(r.Version, 10) + `"` }
