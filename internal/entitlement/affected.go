package entitlement

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
)

// Moved returns a page of the principals that a change of a group's members affects, in the
// order of their IDs: those that joined or left the group since their last evaluation, and
// those whose entitlements the group invalidated. With all, it returns every principal that is
// or was in the group, as a change of its name requires. (`offset 0`: see groupsSQL.)
func (s *Store) Moved(ctx context.Context, of, group uuid.UUID, all bool, after uuid.UUID,
	limit int,
) ([]uuid.UUID, error) {
	return s.page(ctx, of, `
		with recursive below (id, direct) as (
		  select e.target_id, true from edges e
		    join resources g on g.tenant_id = $1 and g.id = $2 and g.deleted_at is null
		   where e.tenant_id = $1 and e.source_id = $2 and e.attribute = 'members'
		  union
		  select e.target_id, false from below
		   cross join lateral (select g.id from resources g where g.tenant_id = $1 and g.id = below.id
		     and g.type = 'Group' and g.deleted_at is null offset 0) g
		   cross join lateral (select e.target_id from edges e where e.tenant_id = $1 and e.source_id = g.id
		     and e.attribute = 'members' offset 0) e),
		members as (
		  select b.id, b.direct from (select id, bool_or(direct) direct from below group by id) b
		   cross join lateral (select 1 from resources r
		     where r.tenant_id = $1 and r.id = b.id and r.type in ('User', 'Agent') and r.deleted_at is null offset 0) r)
		select id from (
		  select coalesce(m.id, c.principal_id) id
		    from members m
		    full join (select principal_id, direct from group_snapshots where tenant_id = $1
		      and group_id = $2) c on c.principal_id = m.id
		   where $3 or m.id is null or c.principal_id is null or m.direct <> c.direct
		  union
		  select principal_id from invalidations where tenant_id = $1 and cause = $2 and principal_id <> $1) concerned
		 where id > $4 order by id limit $5`, of, group, all, after, limit)
}

// Everybody returns a page of a tenant's principals, in the order of their IDs.
func (s *Store) Everybody(ctx context.Context, of, after uuid.UUID, limit int) ([]uuid.UUID, error) {
	return s.page(ctx, of, `
		select id from resources where tenant_id = $1 and type in ('User', 'Agent') and deleted_at is null
		  and id > $2 order by id limit $3`,
		of, after, limit)
}

func (s *Store) page(ctx context.Context, of uuid.UUID, sql string, args ...any) ([]uuid.UUID, error) {
	ids, err := database.Rows(ctx, s.db, of, pgx.RowTo[uuid.UUID], sql, args...)
	if err != nil {
		return nil, fmt.Errorf("list affected principals: %w", err)
	}
	return ids, nil
}

// Invalidated reports whether a committed change that may affect the principal's entitlements
// has not been evaluated yet.
func (s *Store) Invalidated(ctx context.Context, of, principal uuid.UUID) (bool, error) {
	invalidated, err := database.Row(ctx, s.db, of, pgx.RowTo[bool], `select entitlements_stale($1, $2)`, of, principal)
	if err != nil {
		return false, fmt.Errorf("look up invalidations of %s: %w", principal, err)
	}
	return invalidated, nil
}

// NewestInvalidation returns the ID of the newest invalidation of all principals by cause, a
// group or the tenant's rules. Once all affected principals are evaluated, it can be cleared.
func (s *Store) NewestInvalidation(ctx context.Context, of, cause uuid.UUID) (int64, error) {
	newest, err := database.Row(ctx, s.db, of, pgx.RowTo[int64], `select coalesce(max(id), 0) from invalidations
		where tenant_id = $1 and principal_id = $1 and cause = $2`, of, cause)
	if err != nil {
		return 0, fmt.Errorf("look up invalidations by %s: %w", cause, err)
	}
	return newest, nil
}

// Clear deletes the invalidations of all principals by cause, up to the ID newest.
func (s *Store) Clear(ctx context.Context, of, cause uuid.UUID, newest int64) error {
	err := database.Exec(ctx, s.db, of, `
		delete from invalidations where tenant_id = $1 and principal_id = $1 and cause = $2 and id <= $3`, of, cause, newest)
	if err != nil {
		return fmt.Errorf("clear invalidations by %s: %w", cause, err)
	}
	return nil
}

// Unentitled returns a page of principals with a live credential under an entitlement that
// they do not have, for example after a waiver has lapsed or a synchronization was missed.
func (s *Store) Unentitled(ctx context.Context, of, after uuid.UUID, limit int) ([]uuid.UUID, error) {
	return s.page(ctx, of, `
		select distinct i.principal_id from credentials i
		 where i.tenant_id = $1 and i.state = 'live' and i.entitlement ~ '^(team|role|scope):.' and i.principal_id > $2
		   and exists (select 1 from mappings where tenant_id = $1)
		   and not exists (select 1 from entitlements e where e.tenant_id = $1 and e.principal_id = i.principal_id
		     and e.name = i.entitlement)
		   and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = i.principal_id)
		 order by 1 limit $3`, of, after, limit)
}

// ChangesBy returns the entitlements that principals gained and lost by an event, for a page of
// up to limit principals, starting after the ID after.
func (s *Store) ChangesBy(
	ctx context.Context, of, event, after uuid.UUID, limit int,
) ([]connectors.EntitlementChange, error) {
	rows, err := database.Rows(ctx, s.db, of, pgx.RowToStructByPos[change], `
		select distinct on (c.principal_id, c.name) c.principal_id, c.name, c.gained from entitlement_changes c
		 where c.tenant_id = $1 and c.event_id = $2
		   and c.principal_id in (select distinct p.principal_id from entitlement_changes p
		        where p.tenant_id = $1 and p.event_id = $2 and p.principal_id > $3 order by 1 limit $4)
		 order by c.principal_id, c.name, c.id desc`, of, event, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list entitlement changes of event %s: %w", event, err)
	}
	return byPrincipal(rows), nil
}

// Ends reports whether an event ends credentials.
func (s *Store) Ends(ctx context.Context, of, event uuid.UUID) (bool, error) {
	ends, err := database.Row(ctx, s.db, of, pgx.RowTo[bool], `select ends from lifecycle_events
		where tenant_id = $1 and id = $2`, of, event)
	if err != nil {
		return false, fmt.Errorf("read event %s: %w", event, err)
	}
	return ends, nil
}
