package entitlement

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
)

// Moved returns a page of the principals whom a change of a group's members
// concerns, in the order of their ids: who is in it and was not when last computed,
// the other way round, and whose entitlements it invalidated. With all it returns everybody who is or was in it, as a
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
		select id from (
		  select coalesce(m.id, c.principal_id) id
		    from members m
		    full join (select principal_id, direct from computed_groups where tenant_id = $1 and group_id = $2) c on c.principal_id = m.id
		   where $3 or m.id is null or c.principal_id is null or m.direct <> c.direct
		  union
		  select principal_id from invalidations where tenant_id = $1 and cause = $2 and principal_id <> $1) concerned
		 where id > $4 order by id limit $5`, of, group, all, after, limit)
}

// Everybody returns a page of a tenant's principals, in the order of their ids.
func (s *Store) Everybody(ctx context.Context, of, after uuid.UUID, limit int) ([]uuid.UUID, error) {
	return s.page(ctx, of, `
		select id from resources where tenant_id = $1 and type in ('User', 'Agent') and deleted_at is null and id > $2 order by id limit $3`,
		of, after, limit)
}

func (s *Store) page(ctx context.Context, of uuid.UUID, sql string, args ...any) ([]uuid.UUID, error) {
	ids, err := database.Rows(ctx, s.db, of, pgx.RowTo[uuid.UUID], sql, args...)
	if err != nil {
		return nil, fmt.Errorf("look whom the change concerns: %w", err)
	}
	return ids, nil
}

// Invalidated reports whether something was committed that may change what a principal is
// entitled to, and has not been computed yet.
func (s *Store) Invalidated(ctx context.Context, of, principal uuid.UUID) (bool, error) {
	invalidated, err := database.Row(ctx, s.db, of, pgx.RowTo[bool], `select entitlements_stale($1, $2)`, of, principal)
	if err != nil {
		return false, fmt.Errorf("look for invalidations: %w", err)
	}
	return invalidated, nil
}

// NewestInvalidation returns the newest invalidation that a group, or a tenant's rules, have left about
// everybody: once everybody whom it concerns is computed, it can be cleared.
func (s *Store) NewestInvalidation(ctx context.Context, of, cause uuid.UUID) (int64, error) {
	newest, err := database.Row(ctx, s.db, of, pgx.RowTo[int64], `select coalesce(max(id), 0) from invalidations where tenant_id = $1 and principal_id = $1 and cause = $2`, of, cause)
	if err != nil {
		return 0, fmt.Errorf("look for invalidations: %w", err)
	}
	return newest, nil
}

// Clear deletes the invalidations of a cause about everybody, up to one.
func (s *Store) Clear(ctx context.Context, of, cause uuid.UUID, newest int64) error {
	err := database.Exec(ctx, s.db, of, `
		delete from invalidations where tenant_id = $1 and principal_id = $1 and cause = $2 and id <= $3`, of, cause, newest)
	if err != nil {
		return fmt.Errorf("clear invalidations: %w", err)
	}
	return nil
}

// Unentitled returns a page of principals who hold something live under an entitlement
// that they do not have: a waiver that has lapsed, or a synchronisation that never was.
func (s *Store) Unentitled(ctx context.Context, of, after uuid.UUID, limit int) ([]uuid.UUID, error) {
	return s.page(ctx, of, `
		select distinct i.principal_id from inventory i
		 where i.tenant_id = $1 and i.state = 'live' and i.entitlement ~ '^(team|role|scope):.' and i.principal_id > $2
		   and exists (select 1 from mappings where tenant_id = $1)
		   and not exists (select 1 from entitlements e where e.tenant_id = $1 and e.principal_id = i.principal_id and e.name = i.entitlement)
		   and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = i.principal_id)
		 order by 1 limit $3`, of, after, limit)
}

// ChangesBy returns a page of what an event had principals gain and lose, of up to
// limit principals behind one.
func (s *Store) ChangesBy(ctx context.Context, of, event, after uuid.UUID, limit int) ([]connectors.EntitlementChange, error) {
	rows, err := database.Rows(ctx, s.db, of, pgx.RowToStructByPos[change], `
		select distinct on (c.principal_id, c.name) c.principal_id, c.name, c.gained from entitlement_changes c
		 where c.tenant_id = $1 and c.event_id = $2
		   and c.principal_id in (select distinct p.principal_id from entitlement_changes p
		        where p.tenant_id = $1 and p.event_id = $2 and p.principal_id > $3 order by 1 limit $4)
		 order by c.principal_id, c.name, c.id desc`, of, event, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read what event %s changed: %w", event, err)
	}
	return byPrincipal(rows), nil
}

// Ends tells whether an event has had anything to end.
func (s *Store) Ends(ctx context.Context, of, event uuid.UUID) (bool, error) {
	ends, err := database.Row(ctx, s.db, of, pgx.RowTo[bool], `select ends from lifecycle_events where tenant_id = $1 and id = $2`, of, event)
	if err != nil {
		return false, fmt.Errorf("look what event %s ends: %w", event, err)
	}
	return ends, nil
}
