package entitlement

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Moved returns a page of the principals whom a change of a group's members
// concerns, in the order of their ids: who is in it and was not when last computed,
// and the other way round. With all it returns everybody who is or was in it, as a
// change of its name needs. (`offset 0`: see groupsSQL.)
func (s *Store) Moved(ctx context.Context, of, group uuid.UUID, all bool, after uuid.UUID, limit int) ([]uuid.UUID, error) {
	return s.page(ctx, of, `
		with recursive below (id, direct) as (
		  select e.target_id, true from edges e
		    join resources g on g.tenant_id = $1 and g.id = $2 and g.deleted_at is null
		   where e.tenant_id = $1 and e.source_id = $2 and e.attribute = 'members'
		  union
		  select e.target_id, false from below
		   cross join lateral (select g.id from resources g where g.tenant_id = $1 and g.id = below.id and g.type = 'Group' and g.deleted_at is null offset 0) g
		   cross join lateral (select e.target_id from edges e where e.tenant_id = $1 and e.source_id = g.id and e.attribute = 'members' offset 0) e),
		members as (
		  select b.id, b.direct from (select id, bool_or(direct) direct from below group by id) b
		   cross join lateral (select 1 from resources r
		     where r.tenant_id = $1 and r.id = b.id and r.type in ('User', 'Agent') and r.deleted_at is null offset 0) r)
		select coalesce(m.id, c.principal_id) id
		  from members m
		  full join (select principal_id, direct from computed_groups where tenant_id = $1 and group_id = $2) c on c.principal_id = m.id
		 where ($3 or m.id is null or c.principal_id is null or m.direct <> c.direct) and coalesce(m.id, c.principal_id) > $4
		 order by 1 limit $5`, of, group, all, after, limit)
}

// Everybody returns a page of a tenant's principals, in the order of their ids.
func (s *Store) Everybody(ctx context.Context, of, after uuid.UUID, limit int) ([]uuid.UUID, error) {
	return s.page(ctx, of, `
		select id from resources where tenant_id = $1 and type in ('User', 'Agent') and deleted_at is null and id > $2 order by id limit $3`,
		of, after, limit)
}

func (s *Store) page(ctx context.Context, of uuid.UUID, sql string, args ...any) ([]uuid.UUID, error) {
	ids, err := database.Once(ctx, s.db, of, func(rows pgx.Rows) ([]uuid.UUID, error) {
		return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	}, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("look whom the change concerns: %w", err)
	}
	return ids, nil
}

// ChangesBy returns a page of what an event had principals gain and lose, of up to
// limit principals behind one.
func (s *Store) ChangesBy(ctx context.Context, of, event, after uuid.UUID, limit int) ([]Change, error) {
	changes, err := database.Once(ctx, s.db, of, collectChanges, `
		select c.principal_id, c.name, c.gained from entitlement_changes c
		 where c.tenant_id = $1 and c.event_id = $2
		   and c.principal_id in (select distinct p.principal_id from entitlement_changes p
		        where p.tenant_id = $1 and p.event_id = $2 and p.principal_id > $3 order by 1 limit $4)
		 order by c.principal_id, c.name`, of, event, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read what event %s changed: %w", event, err)
	}
	return changes, nil
}

// Ends tells how many items an event has yet to end, or left alive.
func (s *Store) Ends(ctx context.Context, of, event uuid.UUID) (int, error) {
	n, err := database.Once(ctx, s.db, of, func(rows pgx.Rows) (int, error) {
		return pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	}, `
		select count(*) from inventory where tenant_id = $1 and event_id = $2 and state in ('live', 'ending', 'survivor')`, of, event)
	if err != nil {
		return 0, fmt.Errorf("look what event %s ends: %w", event, err)
	}
	return n, nil
}
