package directory

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/scim/filter"
	"github.com/leaverhq/leaver/scim/schema"
)

// builder collects the parameters of one statement. The values of a filter become parameters,
// never SQL text.
type builder struct {
	args []any
}

func (b *builder) arg(v any) string {
	b.args = append(b.args, v)
	return "$" + strconv.Itoa(len(b.args))
}

// scope is the JSON value that InDocument fields are relative to. Its strings are comparison
// keys, as those of the parameters are.
type scope string

const (
	resourceScope scope = "r.folded"
	elementScope  scope = "element"
	// edgeScope is not JSON: its fields are columns of the resource that an edge leads to.
	edgeScope scope = "t"
)

func (b *builder) compile(c filter.Condition, in scope) (string, error) {
	switch c := c.(type) {
	case filter.And:
		return b.pair(c.Left, " and ", c.Right, in)
	case filter.Or:
		return b.pair(c.Left, " or ", c.Right, in)
	case filter.Not:
		inner, err := b.compile(c.Inner, in)
		return "not coalesce(" + inner + ", false)", err
	case filter.Element:
		return b.element(c)
	case filter.Compare:
		return b.compare(c, in)
	}
	return "", fmt.Errorf("%w: unsupported condition %T", ErrUnservable, c)
}

func (b *builder) pair(left filter.Condition, op string, right filter.Condition, in scope) (string, error) {
	l, err := b.compile(left, in)
	if err != nil {
		return "", err
	}
	r, err := b.compile(right, in)
	return "(" + l + op + r + ")", err
}

func (b *builder) compare(c filter.Compare, in scope) (string, error) {
	// `eq null` matches an absent attribute. ne is the complement of eq, so it also matches
	// an absent attribute.
	if c.Op == filter.Ne {
		return b.compile(filter.Not{Inner: filter.Compare{Field: c.Field, Op: filter.Eq, Value: c.Value}}, in)
	}
	if c.Value == nil && c.Op == filter.Eq {
		return b.compile(filter.Not{Inner: filter.Compare{Field: c.Field, Op: filter.Pr}}, in)
	}
	if c.Op == filter.Pr {
		return b.present(c.Field, in)
	}
	if in == edgeScope {
		return b.edgeColumn(c)
	}
	switch c.Field.Place {
	case filter.InID:
		return b.id("r.id", c)
	case filter.InUniqueName, filter.InExternalID, filter.InDisplayName:
		if c.Op == filter.Eq {
			return b.indexed(c), nil
		}
	case filter.InEdges, filter.InGroups:
		return b.edge(c)
	case filter.InSchemas:
		test, err := b.scalar("s.urn", c)
		return "exists (select 1 from unnest(" + b.schemas(c.Field) + ") s (urn) where " + test + ")", err
	case filter.InActive, filter.InCreated, filter.InModified, filter.InType, filter.InVersion, filter.InRestriction:
		return b.scalar(b.column(c.Field), c)
	case filter.InDocument:
	}
	if c.Field.Multi {
		list := b.list(in, c.Field.Path)
		value := "e.element #>> '{}'"
		if c.Field.Sub != "" {
			value = "e.element ->> " + b.arg(c.Field.Sub)
		}
		test, err := b.scalar(value, c)
		return "exists (select 1 from " + list + " where " + test + ")", err
	}
	return b.scalar("("+string(in)+" #>> "+b.arg(c.Field.Path)+")", c)
}

// indexed returns a test for equality that uses the index resources_unique_name,
// resources_external_id or resources_display_name.
func (b *builder) indexed(c filter.Compare) string {
	switch c.Field.Place {
	case filter.InUniqueName:
		return "r.unique_name = " + b.arg(c.Field.Key(fmt.Sprint(c.Value)))
	case filter.InExternalID:
		return "r.external_id = " + b.arg(c.Field.Key(fmt.Sprint(c.Value)))
	default:
		name := b.arg(c.Field.Key(fmt.Sprint(c.Value)))
		return "(left(r.folded ->> 'displayName', 200) = left(" + name +
			", 200) and r.folded ->> 'displayName' = " + name + ")"
	}
}

// column returns the SQL of a field that is stored outside the document.
func (b *builder) column(f filter.Field) string {
	switch f.Place {
	case filter.InID:
		return "r.id::text"
	case filter.InExternalID:
		return "r.external_id"
	case filter.InDisplayName:
		return "(r.folded ->> 'displayName')"
	case filter.InActive:
		return "r.active::text"
	case filter.InCreated:
		return "r.created_at"
	case filter.InModified:
		return "r.modified_at"
	case filter.InType:
		return "r.type"
	case filter.InVersion:
		return `('W/"' || r.version || '"')`
	case filter.InRestriction:
		return "(select " + restrictionColumns[f.Path[len(f.Path)-1]] +
			" from restrictions x where x.tenant_id = r.tenant_id and x.principal_id = r.id)"
	default:
		return "r.unique_name"
	}
}

// restrictionColumns maps the fields of a restriction to SQL.
var restrictionColumns = map[string]string{
	schema.RestrictedSince: "x.since",
	schema.RestrictedCause: "x.cause",
	schema.WorkflowID:      "(select e.workflow_id" + eventOfRestriction + ")",
	schema.Survivors:       "coalesce((select e.survivors" + eventOfRestriction + "), 0)",
}

// eventOfRestriction selects the event e of a restriction x.
const eventOfRestriction = " from lifecycle_events e where e.tenant_id = x.tenant_id and e.id = x.event_id"

// schemas returns the SQL of a resource's schemas (RFC 7643 section 3).
func (b *builder) schemas(f filter.Field) string {
	return "r.extensions || " + b.arg(f.CoreURN) + "::text || array(select " + b.arg(f.RestrictionURN) +
		"::text from restrictions x where x.tenant_id = r.tenant_id and x.principal_id = r.id)"
}

func (b *builder) id(column string, c filter.Compare) (string, error) {
	text, ok := c.Value.(string)
	if !ok || c.Op != filter.Eq {
		return b.scalar(column+"::text", c)
	}
	id, err := uuid.Parse(text)
	if err != nil {
		return "false", nil //nolint:nilerr // no resource has such an id
	}
	return column + " = " + b.arg(id), nil
}

// edge returns a test of a resource's edges. It relies on the primary key of edges, or on the
// index edges_target.
func (b *builder) edge(c filter.Compare) (string, error) {
	inner := c
	inner.Field = filter.Field{Path: []string{c.Field.Sub}, Kind: c.Field.Kind, CaseExact: c.Field.CaseExact}
	if c.Field.Place == filter.InGroups && c.Field.Sub == "value" && c.Op == filter.Eq {
		text, _ := c.Value.(string)
		group, err := uuid.Parse(text)
		if err != nil {
			return "false", nil //nolint:nilerr // no group has such an id
		}
		return "r.id in (select members_within($1, " + b.arg(group) + "))", nil
	}
	test, err := b.edgeColumn(inner)
	return b.edgeExists(c.Field) + " and " + test + ")", err
}

// displayKey is the comparison key of a resource's display name, or of its unique name if it
// has none.
const displayKey = "coalesce(nullif(t.folded ->> 'displayName', ''), t.unique_name)"

// edgeColumn returns a test of the resource that an edge leads to.
func (b *builder) edgeColumn(c filter.Compare) (string, error) {
	switch c.Field.Path[0] {
	case "value":
		return b.id("t.id", c)
	case "type":
		return b.scalar("lower(t.type)", c)
	case "display":
		return b.scalar("coalesce("+displayKey+", '')", c)
	}
	return "", fmt.Errorf("%w: %s is not comparable; use value, type or display", ErrUnservable, c.Field.Path[0])
}

// edgeExists opens an exists(…) over the edges to or from live resources.
func (b *builder) edgeExists(f filter.Field) string {
	if f.Place == filter.InGroups {
		return `exists (select 1 from (select g.id, t.folded, t.unique_name,
			case when g.direct then 'direct' else 'indirect' end "type"
			from groups_of(r.tenant_id, r.id) g join resources t on t.tenant_id = r.tenant_id and t.id = g.id) t where true`
	}
	return `exists (select 1 from edges e join resources t on t.tenant_id = e.tenant_id and t.id = e.target_id
		and t.deleted_at is null
		where e.tenant_id = r.tenant_id and e.source_id = r.id and e.attribute = ` + b.arg(f.Path[0])
}

func (b *builder) element(c filter.Element) (string, error) {
	switch c.Field.Place {
	case filter.InEdges, filter.InGroups:
		exists := b.edgeExists(c.Field)
		test, err := b.compile(c.Where, edgeScope)
		return exists + " and (" + test + "))", err
	default:
		list := b.list(resourceScope, c.Field.Path)
		test, err := b.compile(c.Where, elementScope)
		return "exists (select 1 from " + list + " where " + test + ")", err
	}
}

func (b *builder) list(in scope, path []string) string {
	value := string(in) + " #> " + b.arg(path)
	return "jsonb_array_elements(case jsonb_typeof(" + value + ") when 'array' then " + value +
		" else '[]' end) e (element)"
}

func (b *builder) present(f filter.Field, in scope) (string, error) {
	if in == edgeScope {
		if f.Path[0] == "display" {
			return "coalesce(" + displayKey + ", '') <> ''", nil
		}
		return "true", nil
	}
	switch f.Place {
	case filter.InID, filter.InCreated, filter.InModified, filter.InType, filter.InVersion, filter.InSchemas:
		return "true", nil
	case filter.InActive, filter.InRestriction:
		return b.column(f) + " is not null", nil
	case filter.InEdges, filter.InGroups:
		return b.edgeExists(f) + ")", nil
	default:
	}
	if f.Multi {
		list, test := b.list(in, f.Path), "true"
		if f.Sub != "" {
			test = "coalesce(e.element ->> " + b.arg(f.Sub) + ", '') <> ''"
		}
		return "exists (select 1 from " + list + " where " + test + ")", nil
	}
	return "coalesce(" + string(in) + " #>> " + b.arg(f.Path) + ", '') not in ('', '{}', '[]')", nil
}

// scalar returns a comparison of one SQL value. The value is text (the comparison key of a
// string), unless it is a timestamp column.
func (b *builder) scalar(value string, c filter.Compare) (string, error) {
	switch c.Field.Kind {
	case filter.Boolean:
		wanted, ok := c.Value.(bool)
		if !ok || c.Op != filter.Eq {
			return "", fmt.Errorf("%w: a boolean supports only eq and ne with true or false, and pr; got %s %v",
				ErrUnservable, c.Op, c.Value)
		}
		return value + " = " + b.arg(strconv.FormatBool(wanted)), nil
	case filter.Number:
		number, ok := c.Value.(json.Number)
		if !ok {
			return "", fmt.Errorf("%w: expected a number, got %v", ErrUnservable, c.Value)
		}
		return ordered("("+value+")::numeric", c.Op, b.arg(number.String())+"::text::numeric")
	case filter.Time:
		if _, ok := c.Value.(time.Time); !ok {
			return "", fmt.Errorf("%w: expected a dateTime, got %v", ErrUnservable, c.Value)
		}
		return ordered("("+value+")::timestamptz", c.Op, b.arg(c.Value)+"::timestamptz")
	case filter.String:
		text, ok := c.Value.(string)
		if !ok {
			return "", fmt.Errorf("%w: expected a string, got %v", ErrUnservable, c.Value)
		}
		return textual(value, c.Op, b.arg(c.Field.Key(text))+"::text")
	default:
		return "", fmt.Errorf("%w: a complex attribute has no value to compare; name a sub-attribute", ErrUnservable)
	}
}

func textual(value string, op filter.Op, wanted string) (string, error) {
	switch op {
	case filter.Co:
		return "position(" + wanted + " in " + value + ") > 0", nil
	case filter.Sw:
		return "starts_with(" + value + ", " + wanted + ")", nil
	case filter.Ew:
		return "right(" + value + ", length(" + wanted + ")) = " + wanted, nil
	default:
		return ordered(value+` collate "C"`, op, wanted)
	}
}

func ordered(value string, op filter.Op, wanted string) (string, error) {
	operators := map[filter.Op]string{filter.Eq: "=", filter.Gt: ">", filter.Ge: ">=", filter.Lt: "<", filter.Le: "<="}
	sql, ok := operators[op]
	if !ok {
		return "", fmt.Errorf("%w: operator %s is not supported for this type", ErrUnservable, op)
	}
	return value + " " + sql + " " + wanted, nil
}
