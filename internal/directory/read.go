package directory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Store reads resources. Writes go through package lifecycle, which commits
// them together with what they mean.
type Store struct {
	db     *database.DB
	counts counts
}

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store { return &Store{db: db} }

const (
	// from joins a restriction and the cascade that came of it, by primary keys.
	from = ` resources r
		left join restrictions x on x.tenant_id = r.tenant_id and x.principal_id = r.id
		left join lifecycle_events le on le.tenant_id = x.tenant_id and le.id = x.event_id `

	columns = `r.id, r.type, coalesce(r.unique_name, ''), coalesce(r.display_name, ''), coalesce(r.external_id, ''),
		r.active, r.version, r.created_at, r.modified_at, r.document, r.extensions,
		x.since, coalesce(x.cause, ''), coalesce(le.workflow_id, ''), coalesce(le.survivors, 0)`

	// edgesOf relies on the primary key of edges; only agents have such edges.
	edgesOf = `case when r.type = 'Agent' then
		(select jsonb_agg(jsonb_build_object('attribute', e.attribute, 'value', t.id, 'type', t.type, 'display', coalesce(t.display_name, '')) order by e.attribute, t.id)
		from edges e join resources t on t.tenant_id = e.tenant_id and t.id = e.target_id and t.deleted_at is null
		where e.tenant_id = r.tenant_id and e.source_id = r.id) end`
	// groupsOf relies on edges_target. Who is in no group pays for one look.
	groupsOf = `case when r.type <> 'Group' and exists (
		  select 1 from edges e where e.tenant_id = r.tenant_id and e.target_id = r.id and e.attribute = 'members') then
		(select jsonb_agg(jsonb_build_object('attribute', 'groups', 'value', g.id, 'type', case when g.direct then 'direct' else 'indirect' end, 'display', g.display) order by g.id)
		from groups_of(r.tenant_id, r.id) g) end`
)

func scanInto(row pgx.CollectableRow, r *Resource, more ...any) error {
	var x Restriction
	var since *time.Time
	err := row.Scan(append([]any{
		&r.ID, &r.Type, &r.UniqueName, &r.Display, &r.ExternalID, &r.Active, &r.Version, &r.Created, &r.Modified,
		&r.Document, &r.Extensions, &since, &x.Cause, &x.WorkflowID, &x.Survivors, &r.Edges, &r.Groups,
	}, more...)...)
	if since != nil {
		x.Since = *since
		r.Restriction = &x
	}
	return err
}

func scan(row pgx.CollectableRow) (*Resource, error) {
	var r Resource
	err := scanInto(row, &r)
	return &r, err
}

// Get returns a live resource of the type. Error: [ErrNotFound].
func (s *Store) Get(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID) (*Resource, error) {
	return Read(ctx, s.db, tenant, resourceType, id)
}

// Read is [Store.Get] for whoever has the database at hand.
func Read(ctx context.Context, db *database.DB, tenant uuid.UUID, resourceType string, id uuid.UUID) (*Resource, error) {
	r, err := database.Once(ctx, db, tenant, func(rows pgx.Rows) (*Resource, error) { return pgx.CollectExactlyOneRow(rows, scan) },
		`select `+columns+`, `+edgesOf+`, `+groupsOf+` from`+from+`
		 where r.tenant_id = $1 and r.id = $2 and r.type = $3 and r.deleted_at is null`, tenant, id, resourceType)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%s %s: %w", resourceType, id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("get %s %s: %w", resourceType, id, err)
	}
	return r, nil
}

// CheckTargets returns an [UnknownTargetError] for an edge whose target is no
// live resource of a type that the attribute may lead to. Nothing contains itself.
func CheckTargets(ctx context.Context, db *database.DB, tenant, source uuid.UUID, edges []Edge) error {
	if len(edges) == 0 {
		return nil
	}
	attributes, targets := make([]string, len(edges)), make([]uuid.UUID, len(edges))
	for i, e := range edges {
		attributes[i], targets[i] = e.Attribute, e.Target
	}
	missing, err := database.Once(ctx, db, tenant, func(rows pgx.Rows) ([]*UnknownTargetError, error) {
		return pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[UnknownTargetError])
	}, `
		select w.attribute, w.target_id::text from unnest($3::text[], $4::uuid[]) w (attribute, target_id)
		 where (w.attribute in ('members', 'parent') and w.target_id = $2)
		    or not exists (select 1 from resources t where t.tenant_id = $1 and t.id = w.target_id and t.deleted_at is null and `+mayLead+`)
		 limit 1`, tenant, source, attributes, targets)
	if err != nil {
		return fmt.Errorf("look for the targets of edges: %w", err)
	}
	if len(missing) > 0 {
		return missing[0]
	}
	return nil
}

// mayLead tells whether an edge w may lead to a resource t.
const mayLead = `t.type = any (case w.attribute
	when 'members' then array['User', 'Agent', 'Group'] when 'owners' then array['User', 'Group'] else array['Agent'] end)`
