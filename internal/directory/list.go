package directory

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/scim/filter"
)

// Query selects a page of resources.
type Query struct {
	From []Selection // at least one
	// Sorted orders by each selection's Sort instead of by ID, which is the order of
	// creation. Resources without a value come last, or first if Descending (RFC 7644
	// section 3.4.2.3).
	Sorted, Descending bool
	// After is the position after which the page starts; Offset is how many resources to
	// skip.
	After  *Position
	Offset int
	Limit  int // 0 only counts
}

// Selection is one resource type of a query.
type Selection struct {
	Type  string
	Where filter.Condition // nil selects all
	Sort  *filter.Field    // nil if the type has no such attribute
}

// Position is the place of a resource in the order of a query.
type Position struct {
	ID  uuid.UUID `json:"i"`
	Key *string   `json:"k,omitempty"` // the sort value as PostgreSQL writes it; nil for none
}

// Page is the result of a query.
type Page struct {
	Resources []*Resource
	Total     int // number of matches on all pages
	// Next is the position of the last resource; nil on the last page.
	Next *Position
}

// List returns a page. It selects one resource more than the limit, so that it detects the
// last page without counting.
// Errors: [ErrUnservable], [ErrUnsortable].
func (s *Store) List(ctx context.Context, tenant uuid.UUID, q Query) (Page, error) {
	b := builder{args: []any{tenant}}
	match, err := b.match(q)
	if err != nil {
		return Page{}, err
	}
	matchArgs := len(b.args)
	if !q.isLookup() {
		slow, release, err := s.db.Slow(ctx, tenant)
		if err != nil {
			return Page{}, err
		}
		defer release()
		ctx = slow
	}
	var page Page
	if q.Limit > 0 {
		if page, err = s.page(ctx, tenant, q, &b, match); err != nil {
			return Page{}, err
		}
	}
	// The total of the last page follows from its offset.
	if n := len(page.Resources); q.After == nil && page.Next == nil && (n > 0 || (q.Offset == 0 && q.Limit > 0)) {
		page.Total = q.Offset + n
		return page, nil
	}
	page.Total, err = s.counts.of(ctx, tenant, match, b.args[:matchArgs], func(ctx context.Context) (int, error) {
		return database.Row(ctx, s.db, tenant, pgx.RowTo[int], "select count(*)"+match, b.args[:matchArgs]...)
	})
	if err != nil {
		return Page{}, fmt.Errorf("count resources: %w", err)
	}
	return page, nil
}

func (s *Store) page(ctx context.Context, tenant uuid.UUID, q Query, b *builder, match string) (Page, error) {
	key, err := b.sortKey(q)
	if err != nil {
		return Page{}, err
	}
	if q.After != nil {
		match += b.after(q, key)
	}
	sql := "select " + shown + ", r.type, "
	if q.Offset > 0 || q.Sorted {
		// Sort and skip IDs only, so that skipped rows are not read in full.
		sql += "page.key::text from (select r.tenant_id, r.id, " + key.sql + " as key" + match + b.order(q, "r.", "key") +
			") page join resources r using (tenant_id, id) order by " + order(q, "page.", "page.key")
	} else {
		sql += "null::text" + match + b.order(q, "r.", "key")
	}
	var keys []*string
	var resources []*Resource
	query := database.Statement{SQL: sql, Args: b.args, Collect: func(rows pgx.Rows) (err error) {
		resources, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Resource, error) {
			var r Resource
			var key *string
			err := scanShown(row, &r, &r.Type, &key)
			keys = append(keys, key)
			return &r, err
		})
		return err
	}}
	if err = database.Together(ctx, s.db, tenant, query); err != nil {
		return Page{}, fmt.Errorf("list resources: %w", err)
	}
	page := Page{Resources: resources}
	if len(resources) > q.Limit {
		page.Resources = resources[:q.Limit]
		page.Next = &Position{ID: resources[q.Limit-1].ID}
		if q.Sorted {
			page.Next.Key = keys[q.Limit-1]
		}
	}
	return page, nil
}

// isLookup reports whether one lookup in a unique index answers the query.
func (q Query) isLookup() bool {
	_, bare := q.From[0].Where.(filter.Compare)
	return bare && q.findsOne()
}

// order returns the order and the limits of a page. A lookup of at most one resource needs no
// order.
func (b *builder) order(q Query, table, key string) string {
	if q.findsOne() {
		return " limit 2"
	}
	end := " order by " + order(q, table, key) + " limit " + b.arg(q.Limit+1)
	if q.Offset > 0 {
		end += " offset " + b.arg(q.Offset)
	}
	return end
}

func order(q Query, table, key string) string {
	switch {
	case !q.Sorted:
		return table + "id"
	case q.Descending:
		return key + " desc, " + table + "id"
	}
	return key + ", " + table + "id"
}

// findsOne reports whether the query matches at most one resource: by name or ID, as identity
// providers query before they write.
func (q Query) findsOne() bool {
	return len(q.From) == 1 && q.Offset == 0 && q.Limit > 0 && !q.Sorted && one(q.From[0].Where)
}

func one(c filter.Condition) bool {
	switch c := c.(type) {
	case filter.And:
		return one(c.Left) || one(c.Right)
	case filter.Compare:
		return c.Op == filter.Eq && c.Value != nil && (c.Field.Place == filter.InUniqueName || c.Field.Place == filter.InID)
	}
	return false
}

// match returns the from and where clauses of a query.
func (b *builder) match(q Query) (string, error) {
	var parts []string
	for _, s := range q.From {
		part := "r.type = " + b.arg(s.Type)
		if s.Where != nil {
			where, err := b.compile(s.Where, resourceScope)
			if err != nil {
				return "", err
			}
			part += " and (" + where + ")"
		}
		parts = append(parts, part)
	}
	where := strings.Join(parts, ") or (")
	if len(parts) > 1 {
		where = "((" + where + "))"
	}
	return " from resources r where r.tenant_id = $1 and r.deleted_at is null and " + where, nil
}

type sortKey struct{ sql, cast string }

// sortKey returns the expression by which the resources of each type are sorted.
func (b *builder) sortKey(q Query) (sortKey, error) {
	if !q.Sorted {
		return sortKey{sql: "null", cast: "text"}, nil
	}
	var key sortKey
	var cases []string
	for _, s := range q.From {
		if s.Sort == nil {
			continue
		}
		sql, cast, err := b.sortValue(*s.Sort)
		if err != nil {
			return sortKey{}, err
		}
		if key.cast != "" && key.cast != cast {
			return sortKey{}, fmt.Errorf("%w: the attribute has different types in the resource types", ErrUnsortable)
		}
		if key.sql, key.cast = sql, cast; len(q.From) > 1 {
			cases = append(cases, "when "+b.arg(s.Type)+" then "+sql)
		}
	}
	if key.sql == "" {
		return sortKey{sql: "null", cast: "text"}, nil
	}
	if len(q.From) > 1 {
		key.sql = "case r.type " + strings.Join(cases, " ") + " end"
	}
	return key, nil
}

func (b *builder) sortValue(f filter.Field) (sql, sqlType string, err error) {
	switch f.Place {
	case filter.InEdges, filter.InGroups, filter.InSchemas:
		return "", "", fmt.Errorf("%w: %s is not sortable", ErrUnsortable, f.Path[0])
	case filter.InUniqueName:
		return "r.unique_name", `text collate "C"`, nil // resources_unique_name
	case filter.InDocument:
	default:
		return cast(b.column(f), f)
	}
	if !f.Multi {
		return cast("(r.folded #>> "+b.arg(f.Path)+")", f)
	}
	// The primary value, or else the first.
	value := "e.element #>> '{}'"
	if f.Sub != "" {
		value = "e.element ->> " + b.arg(f.Sub)
	}
	list := strings.Replace(b.list(resourceScope, f.Path), " e (element)", " with ordinality e (element, n)", 1)
	return cast("(select "+value+" from "+list+
		" order by (e.element ->> 'primary') = 'true' desc nulls last, n limit 1)", f)
}

func cast(sql string, f filter.Field) (value, cast string, err error) {
	switch f.Kind {
	case filter.Number:
		return "(" + sql + ")::numeric", "numeric", nil
	case filter.Time:
		return "(" + sql + ")::timestamptz", "timestamptz", nil
	case filter.Complex:
		return "", "", fmt.Errorf("%w: a complex attribute has no value to sort by; name a sub-attribute", ErrUnsortable)
	case filter.Boolean:
		return "(" + sql + ")::boolean", "boolean", nil
	default:
	}
	return sql + ` collate "C"`, `text collate "C"`, nil
}

// after returns the condition that a resource comes after a position.
func (b *builder) after(q Query, key sortKey) string {
	id := b.arg(q.After.ID)
	if !q.Sorted {
		return " and r.id > " + id
	}
	k := "(" + key.sql + ")"
	switch {
	case q.After.Key == nil && q.Descending: // among those without a value, which come first
		return " and ((" + k + " is null and r.id > " + id + ") or " + k + " is not null)"
	case q.After.Key == nil:
		return " and " + k + " is null and r.id > " + id
	}
	value := "(" + b.arg(*q.After.Key) + "::text)::" + key.cast
	if q.Descending {
		return " and (" + k + " < " + value + " or (" + k + " = " + value + " and r.id > " + id + "))"
	}
	return " and (" + k + " > " + value + " or (" + k + " = " + value + " and r.id > " + id + ") or " + k + " is null)"
}

// Members returns, for each of the groups, at most limit of its members in the order of IDs,
// starting after the ID after. It relies on the primary key of edges.
func (s *Store) Members(ctx context.Context, tenant uuid.UUID, groups []uuid.UUID, after uuid.UUID,
	limit int,
) (map[uuid.UUID][]Edge, error) {
	members := make(map[uuid.UUID][]Edge, len(groups))
	var group uuid.UUID
	e := Edge{Attribute: EdgeMembers}
	collect := database.Each([]any{&group, &e.Target, &e.Type, &e.Display},
		func() { members[group] = append(members[group], e) })
	err := database.Together(ctx, s.db, tenant, database.Statement{
		Args:    []any{tenant, groups, after, limit},
		Collect: collect, SQL: `
		select g.id, m.id, m.type, m.display from unnest($2::uuid[]) g (id) cross join lateral (
		  select t.id, t.type, coalesce(t.display_name, '') display
		    from edges e join resources t on t.tenant_id = e.tenant_id and t.id = e.target_id and t.deleted_at is null
		   where e.tenant_id = $1 and e.source_id = g.id and e.attribute = 'members' and e.target_id > $3
		   order by e.target_id limit $4) m
		 order by g.id, m.id`,
	})
	if err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	return members, nil
}
