package cascade

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/evidence"
)

// Item holds the fields of a credential or scheduled run that a cascade needs to end it. It
// contains no secrets, since it passes through Temporal.
type Item struct {
	ID        uuid.UUID
	Kind      connectors.Kind
	Connector string
	Verb      credential.Verb
	Blocked   bool // by an earlier run of the cascade, while that was held for approval
	// Mints: other credentials are issued with it. Absent in the histories of cascades before migration 00010.
	Mints bool `json:",omitempty"`
}

// First reports whether an item is ended before others, since it can issue them.
func (i Item) First() bool { return i.Kind == connectors.ScheduledRun || i.Mints }

// endsLater is the opposite of [Item.First] in SQL.
const endsLater = `(kind <> 'scheduled_run' and not mints)`

// Page selects a page of the items that a cascade has yet to end.
type Page struct {
	After Item // the last item of the previous page; zero for the first page
	// CheckBlocked: look up whether each item is blocked.
	CheckBlocked bool
	Limit        int
}

// Scope selects the items that one cascade ends.
type Scope struct {
	Event     uuid.UUID
	Principal uuid.UUID
	Sequence  int64 // items registered after a later return are out of scope (I3)
	// Moves limits the scope to the items that a mover's event has marked: those whose
	// entitlement is lost.
	Moves bool
}

// open selects the event of a cascade, if it is not closed. Its principal, its sequence and
// its scope are read from PostgreSQL, and never taken from a workflow's input.
const open = `event as materialized (
		  select * from lifecycle_events where tenant_id = $1 and id = $2 and closed_at is null
		    and (kind = 'leaver' or ends)),
		ending as materialized (
		  select array(select e.principal_id union select agents_ending_with($1, e.principal_id)) as ids
		    from event e where e.kind = 'leaver')`

// found returns the condition for the items that a cascade has yet to end: for a leaver, all
// items that it, and the agents that end with it, held up to its event. Survivors of the same
// event are excluded until another run.
func (s Scope) found() string {
	if s.Moves {
		return `i.event_id = $2 and i.state in ('live', 'ending') and exists (select 1 from event where kind = 'mover')`
	}
	// The cascade of a claimed credential does not end the survivors of other cascades.
	return `(i.state in ('live', 'ending')
		       or (i.state = 'failed' and i.event_id is distinct from $2 and not exists (select 1 from event
		         where trigger = 'claimed')))
		     and ` + ofEnding + `
		     and not of_later_life($1, (select sequence from event), i.sequence, array[i.principal_id, i.agent_id,
		       (select principal_id from event)])`
}

// ofEnding selects the items of the ending principals. The IDs are arrays, so that the query
// uses indexes and its cost does not grow with the tenant's other credentials.
const ofEnding = `(i.principal_id = any ((select ids from ending)::uuid[])
	or i.agent_id = any ((select ids from ending)::uuid[]))`

// MarkEnding returns a page of the items that the cascade has yet to end, scheduled runs and minters first,
// since they can issue credentials: items issued for the principal, items that it holds as an
// agent, items of the agents that end with it, and survivors of other cascades. It marks them
// as ending in this cascade, and returns them again until they are concluded.
func (c *Store) MarkEnding(ctx context.Context, tenant uuid.UUID, scope Scope, page Page) ([]Item, error) {
	held, err := database.Rows(ctx, c.db, tenant, func(row pgx.CollectableRow) (h Item, err error) {
		var reliedOn bool
		err = row.Scan(&h.ID, &h.Kind, &h.Connector, &reliedOn, &h.Blocked, &h.Mints)
		h.Verb = credential.EndVerb(h.Kind, reliedOn)
		return h, err
	}, `
		with `+open+`,
		found as materialized (
		  select i.id, relied_on(i, '{}') as relied_on from credentials i
		   where i.tenant_id = $1 and `+scope.found()+`
		     and (`+endsLater+`, i.id) > ($4::boolean, $5::uuid)
		   order by `+endsLater+`, i.id limit $3),
		marked as (
		  update credentials i set state = 'ending', event_id = $2, updated_at = now()
		    from found f where i.tenant_id = $1 and i.id = f.id
		     -- Repeated, for items that were concluded since the select: an item that has
		     -- failed in this run stays failed.
		     and (i.state in ('live', 'ending') or (i.state = 'failed' and i.event_id is distinct from $2))
		  returning i.id, i.kind, i.connector, f.relied_on, i.mints)
		select id, kind, connector, relied_on,
		       $6 and `+evidence.IsBlocked("m.id", "$2")+`, mints
		  from marked m order by `+endsLater+`, id`,
		tenant, scope.Event, page.Limit,
		page.After.ID != uuid.Nil && !page.After.First(), page.After.ID, page.CheckBlocked)
	if err != nil {
		return nil, fmt.Errorf("discover credentials of %s: %w", scope.Principal, err)
	}
	return held, nil
}

// Blocked returns the items that a cancelled cascade has blocked and may unblock: see [credential.MayUnblock].
func (c *Store) Blocked(ctx context.Context, tenant, event uuid.UUID) ([]Item, error) {
	items, err := database.Rows(ctx, c.db, tenant, func(row pgx.CollectableRow) (h Item, err error) {
		return h, row.Scan(&h.ID, &h.Kind, &h.Connector)
	}, `
		select i.id, i.kind, i.connector from credentials i
		 where i.tenant_id = $1 and i.event_id = $2 and `+credential.MayUnblock+`
		 order by i.id`, tenant, event)
	if err != nil {
		return nil, fmt.Errorf("list what cascade %s has blocked: %w", event, err)
	}
	return items, nil
}

// LeftBlocked is an item that a cancelled cascade has left blocked.
type LeftBlocked struct{ Event, Item uuid.UUID }

const (
	// leftAfter is how long a cancelled cascade may itself try to unblock its items.
	leftAfter = 20 * time.Minute
	// unblockWindow is how long items are unblocked after their cascade was cancelled.
	unblockWindow = 30 * 24 * time.Hour
)

// leftBlocked is the FROM and WHERE clause of the items i that cancelled cascades e have left blocked although they may
// unblock them, such as those of agents that were restored later.
const leftBlocked = `
	lifecycle_events e join credentials i on i.tenant_id = $1 and i.event_id = e.id
	 where e.tenant_id = $1 and (e.kind = 'leaver' or e.ends) and e.outcome = 'cancelled'
	   and e.closed_at between now() - $2::interval and now() - $3::interval and ` + credential.MayUnblock

// LeftBlockedAt returns the connectors with items that cancelled cascades have left blocked.
func (c *Store) LeftBlockedAt(ctx context.Context, tenant uuid.UUID) ([]string, error) {
	names, err := database.Rows(ctx, c.db, tenant, pgx.RowTo[string],
		`select distinct i.connector from `+leftBlocked+` order by 1`, tenant, unblockWindow, leftAfter)
	if err != nil {
		return nil, fmt.Errorf("list the connectors where cancelled cascades have left blocks: %w", err)
	}
	return names, nil
}

// LeftBlocked returns at most limit items at a connector that cancelled cascades have left blocked, with an id greater
// than after, in their order.
func (c *Store) LeftBlocked(
	ctx context.Context, tenant uuid.UUID, connector string, after uuid.UUID, limit int,
) ([]LeftBlocked, error) {
	left, err := database.Rows(ctx, c.db, tenant, pgx.RowToStructByPos[LeftBlocked], `
		select e.id, i.id from `+leftBlocked+` and i.connector = $4 and i.id > $5 order by i.id limit $6`,
		tenant, unblockWindow, leftAfter, connector, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list what cancelled cascades have left blocked at %s: %w", connector, err)
	}
	return left, nil
}

// Principals returns the principal and the agents that end with it.
func (c *Store) Principals(ctx context.Context, tenant, principal uuid.UUID) ([]uuid.UUID, error) {
	ids, err := database.Rows(ctx, c.db, tenant, pgx.RowTo[uuid.UUID], `
		select $2::uuid union select agents_ending_with($1, $2)`, tenant, principal)
	if err != nil {
		return nil, fmt.Errorf("list agents that end with %s: %w", principal, err)
	}
	return ids, nil
}

// BeginRun opens a run of a cascade. It waits for registrations of its principal that are in
// progress (later ones are refused), and reopens the survivors of an earlier run: as live, or
// for a mover as ending, since their entitlement is lost.
func (c *Store) BeginRun(ctx context.Context, tenant uuid.UUID, scope Scope) error {
	if scope.Moves {
		return c.exec(ctx, tenant, "begin a run of the cascade", reopenSQL, tenant, scope.Event, credential.Ending)
	}
	err := database.Together(ctx, c.db, tenant,
		database.Statement{
			SQL:  `select pg_advisory_xact_lock(lock_key($1, array['principal', $2::uuid::text]))`,
			Args: []any{tenant, scope.Principal},
		},
		database.Statement{SQL: reopenSQL, Args: []any{tenant, scope.Event, credential.Live}})
	if err != nil {
		return fmt.Errorf("begin a run of the cascade: %w", err)
	}
	return nil
}

const reopenSQL = `
	update credentials set state = $3, reason = '', updated_at = now()
	 where tenant_id = $1 and event_id = $2 and state = 'failed'`

func (c *Store) exec(ctx context.Context, tenant uuid.UUID, what, sql string, args ...any) error {
	if err := database.Exec(ctx, c.db, tenant, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
