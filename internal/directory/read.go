package directory

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Store reads resources. Writes go through package lifecycle, which commits
// them together with what they mean.
type Store struct {
	db *database.DB
}

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store { return &Store{db: db} }

const (
	columns = `r.id, r.type, coalesce(r.unique_name, ''), coalesce(r.display_name, ''), coalesce(r.external_id, ''),
		r.active, r.version, r.created_at, r.modified_at, r.document,
		exists (select 1 from restrictions x where x.tenant_id = r.tenant_id and x.principal_id = r.id)`

	// edgesOf and groupsOf rely on the primary key of edges and on edges_target.
	edgesOf = `(select jsonb_agg(jsonb_build_object('attribute', e.attribute, 'value', t.id, 'type', t.type, 'display', coalesce(t.display_name, '')) order by e.attribute, t.id)
		from edges e join resources t on t.tenant_id = e.tenant_id and t.id = e.target_id and t.deleted_at is null
		where e.tenant_id = r.tenant_id and e.source_id = r.id)`
	groupsOf = `(select jsonb_agg(jsonb_build_object('attribute', 'groups', 'value', g.id, 'type', 'direct', 'display', coalesce(g.display_name, '')) order by g.id)
		from edges e join resources g on g.tenant_id = e.tenant_id and g.id = e.source_id and g.deleted_at is null
		where e.tenant_id = r.tenant_id and e.target_id = r.id and e.attribute = 'members')`
)

func scan(row pgx.CollectableRow) (*Resource, error) {
	var r Resource
	err := row.Scan(&r.ID, &r.Type, &r.UniqueName, &r.Display, &r.ExternalID,
		&r.Active, &r.Version, &r.Created, &r.Modified, &r.Document, &r.Restricted, &r.Edges, &r.Groups)
	return &r, err
}

// Get returns a live resource of the type. Error: [ErrNotFound].
func (s *Store) Get(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID) (*Resource, error) {
	var r *Resource
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) (err error) {
		r, err = one(ctx, tx, `select `+columns+`, `+edgesOf+`, `+groupsOf+` from resources r
			where r.tenant_id = $1 and r.id = $2 and r.type = $3 and r.deleted_at is null`, tenant, id, resourceType)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("get %s %s: %w", resourceType, id, err)
	}
	return r, nil
}

// Lock reads a live resource of the type and keeps others from changing it
// until the transaction ends. Error: [ErrNotFound].
func Lock(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, resourceType string, id uuid.UUID) (*Resource, error) {
	// The lock comes first, in a statement of its own: what is read after it
	// is what the previous holder committed.
	tag, err := tx.Exec(ctx, `select 1 from resources
		where tenant_id = $1 and id = $2 and type = $3 and deleted_at is null for no key update`, tenant, id, resourceType)
	if err != nil {
		return nil, err
	}
	if tag.RowsAffected() == 0 {
		return nil, ErrNotFound
	}
	return one(ctx, tx, `select `+columns+`, `+edgesOf+`, `+groupsOf+` from resources r
		where r.tenant_id = $1 and r.id = $2`, tenant, id)
}

func one(ctx context.Context, tx pgx.Tx, sql string, args ...any) (*Resource, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	r, err := pgx.CollectExactlyOneRow(rows, scan)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	return r, err
}

// Query selects a page of resources of one type.
type Query struct {
	Type  string
	Where Condition // nil selects all
	// Offset and Limit of the page, in resources; Limit 0 only counts.
	Offset, Limit int
	// WithoutEdges spares the edges (excludedAttributes=members).
	WithoutEdges bool
}

// List returns a page in the order of ids, which is that of creation, and how
// many resources match in all.
func (s *Store) List(ctx context.Context, tenant uuid.UUID, q Query) (page []*Resource, total int, err error) {
	b := builder{args: []any{tenant, q.Type}}
	where := "true"
	if q.Where != nil {
		if where, err = b.compile(q.Where, resourceScope); err != nil {
			return nil, 0, err
		}
	}
	match := ` from resources r where r.tenant_id = $1 and r.type = $2 and r.deleted_at is null and (` + where + `)`
	edges := edgesOf
	if q.WithoutEdges {
		edges = "null::jsonb"
	}
	// The page is taken over ids alone: an offset evaluates the select list of
	// every row it skips.
	limit, offset := b.arg(q.Limit), b.arg(q.Offset)
	list := `select ` + columns + `, ` + edges + `, ` + groupsOf + `
		from (select r.tenant_id, r.id` + match + ` order by r.id limit ` + limit + ` offset ` + offset + `) page
		join resources r using (tenant_id, id) order by r.id`
	err = s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `select count(*)`+match, b.args[:len(b.args)-2]...).Scan(&total); err != nil {
			return err
		}
		if q.Limit == 0 {
			return nil
		}
		rows, err := tx.Query(ctx, list, b.args...)
		if err != nil {
			return err
		}
		page, err = pgx.CollectRows(rows, scan)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", q.Type, err)
	}
	return page, total, nil
}
