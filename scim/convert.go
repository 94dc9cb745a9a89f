package scim

import (
	"fmt"
	"strconv"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/textkey"
)

// toResource splits an Object into document, indexed columns and edges.
func toResource(rd reader, rt *ResourceType, o Object) (*directory.Resource, error) {
	r := &directory.Resource{Type: rt.Name, Members: directory.Delta{SkipUnknown: rd.skipsMembers}}
	document := Object{}
	for name, value := range o {
		a := attribute(rt.Schema.Attributes, name)
		switch {
		case a != nil && a.edge:
			edges, unknown := toEdges(a, value)
			if len(unknown) > 0 && (!a.unbounded || !rd.skipsMembers) {
				return nil, &directory.UnknownTargetError{Attribute: a.Name, Value: unknown[0]}
			}
			r.Members.Skipped = append(r.Members.Skipped, unknown...)
			if !a.unbounded {
				r.Edges = append(r.Edges, edges...)
				continue
			}
			for _, e := range edges {
				r.Members.Add(e.Target)
			}
		case a != nil && a.discarded:
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
	if rt.unique != "" {
		name, _ := o[rt.unique].(string)
		r.UniqueName = textkey.Fold(name)
		r.Display = name
	}
	if display, ok := o["displayName"].(string); ok && display != "" {
		r.Display = display
	}
	for name, value := range map[string]string{rt.unique: r.UniqueName, "externalId": r.ExternalID} {
		if len(value) > maxName {
			return nil, violationf(invalidValue, "%s must be at most %d bytes, got %d", name, maxName, len(value))
		}
	}
	for _, extension := range rt.Extensions {
		if o[extension.ID] != nil {
			r.Extensions = append(r.Extensions, extension.ID)
		}
	}
	if validity, _ := o[ValidityURN].(Object); validity != nil {
		if text, ok := validity["validUntil"].(string); ok {
			until, err := parseTime(text)
			if err != nil {
				return nil, violationf(invalidValue,
					"validUntil must be a dateTime such as 2030-01-31T00:00:00Z, got %q", text)
			}
			r.ValidUntil = &until
		}
	}
	if err := uniqueValues(rt, o, r); err != nil {
		return nil, err
	}
	r.Document = appendValue(nil, document)
	r.Folded = appendValue(nil, fold(rt, document))
	return r, nil
}

// uniqueValues sets r.Unique to the keys of the unique attributes other than the unique name.
func uniqueValues(rt *ResourceType, o Object, r *directory.Resource) error {
	if len(rt.uniques) == 0 {
		return nil
	}
	r.Unique = make(map[string]string)
	for _, a := range rt.uniques {
		members := o
		if a.schema != rt.Schema {
			members, _ = o[a.schema.ID].(Object)
		}
		if members[a.Name] == nil {
			continue
		}
		value := a.key(fmt.Sprint(members[a.Name]))
		if len(value) > maxName {
			return violationf(invalidValue, "%s must be at most %d bytes, got %d", a.Name, maxName, len(value))
		}
		r.Unique[rt.path(a.schema, a.Attribute)] = value
	}
	return nil
}

// toEdges returns the edges of an attribute, and the values that are not the id of a resource.
func toEdges(a *Attribute, value any) (edges []directory.Edge, unknown []string) {
	list := listOf(value)
	seen := make(map[uuid.UUID]bool, len(list))
	for _, v := range list {
		object, _ := v.(Object)
		text, _ := object["value"].(string)
		id, err := uuid.Parse(text)
		if err != nil {
			unknown = append(unknown, clip(text))
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
func toObject(rt *ResourceType, r *directory.Resource) (Object, error) {
	o, err := parseObject(r.Document)
	if err != nil {
		// Not wrapped: a wrapped Error would be reported as the client's error.
		return nil, fmt.Errorf("read the stored document of %s: %s", r.ID, err.Error())
	}
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

// etag returns a resource's version (RFC 7644 section 3.14). It is weak: it does not change
// with the names of other resources or with the groups of a principal.
func etag(r *directory.Resource) string { return `W/"` + strconv.FormatInt(r.Version, 10) + `"` }
