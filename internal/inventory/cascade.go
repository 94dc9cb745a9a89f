package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/seal"
)

// Held is what a cascade needs to know of an item before it ends it: nothing
// secret, since it travels through Temporal.
type Held struct {
	ID        uuid.UUID
	Kind      Kind
	Connector string
	Shared    bool // others rely on it: it is rotated
	Blocked   bool // by an earlier run of the cascade, while the brake holds it back
}

// Look is one look at what a cascade has yet to end.
type Look struct {
	After Held // the last item of the page before; zero begins
	// Held: whether an item is blocked matters, and is looked up.
	Held  bool
	Limit int
}

// Scope selects what one cascade ends.
type Scope struct {
	Event     uuid.UUID
	Principal uuid.UUID
	Sequence  int64 // what was registered later belongs to a later life (I3)
	// Moves: of a mover, only what the event has marked: what was granted under an
	// entitlement that is lost.
	Moves bool
}

// open is the event of a cascade, if there is one that is not closed: its principal, its
// place in the order and what it may end are PostgreSQL's to say, and not an input's.
const open = `event as materialized (
		  select * from lifecycle_events where tenant_id = $1 and id = $2 and closed_at is null and (kind = 'leaver' or ends)),
		ending as materialized (
		  select array(select e.principal_id union select agents_ending_with($1, e.principal_id)) as ids from event e where e.kind = 'leaver')`

// found selects what a cascade has yet to end: of a leaver all that it, and the
// agents that end with it, held up to its event. Survivors of the same event are not
// among it: they wait for another run.
func (s Scope) found() string {
	if s.Moves {
		return `i.event_id = $2 and i.state in ('live', 'ending') and exists (select 1 from event where kind = 'mover')`
	}
	return `(i.state in ('live', 'ending') or (i.state = 'survivor' and i.event_id is distinct from $2))
		     and ` + ofEnding + `
		     and not of_later_life($1, (select sequence from event), i.sequence, array[i.principal_id, i.agent_id, (select principal_id from event)])`
}

// ofEnding selects what those hold who end. As arrays, which indexes take: what a tenant
// has in all must not count.
const ofEnding = `(i.principal_id = any ((select ids from ending)::uuid[]) or i.agent_id = any ((select ids from ending)::uuid[]))`

// Discover returns a page of the items that the cascade has yet to end,
// scheduled runs first, since they can mint: what was issued for the principal,
// what it holds as an agent, what the agents hold that end with it, and what
// survived other cascades. It marks them as being ended by
// this cascade; they are found again until they are concluded.
func (s *Store) Discover(ctx context.Context, tenant uuid.UUID, scope Scope, look Look) ([]Held, error) {
	held, err := database.Once(ctx, s.db, tenant, func(rows pgx.Rows) ([]Held, error) {
		return pgx.CollectRows(rows, pgx.RowToStructByPos[Held])
	}, `
		with `+open+`,
		found as materialized (
		  select i.id, rotates(i) as rotates from inventory i
		   where i.tenant_id = $1 and `+scope.found()+`
		     and (i.kind <> 'scheduled_run', i.id) > ($4::boolean, $5::uuid)
		   order by i.kind <> 'scheduled_run', i.id limit $3),
		marked as (
		  update inventory i set state = 'ending', event_id = $2, updated_at = now()
		    from found f where i.tenant_id = $1 and i.id = f.id
		     -- Said again, for what was concluded since the look: what has failed in this
		     -- run stays failed.
		     and (i.state in ('live', 'ending') or (i.state = 'survivor' and i.event_id is distinct from $2))
		  returning i.id, i.kind, i.connector, f.rotates)
		select id, kind, connector, rotates,
		       $6 and exists (select 1 from evidence e where e.tenant_id = $1 and e.item_id = m.id and e.event_id = $2 and e.step = 'block')
		  from marked m order by kind <> 'scheduled_run', id`,
		tenant, scope.Event, look.Limit,
		look.After.ID != uuid.Nil && look.After.Kind != ScheduledRun, look.After.ID, look.Held)
	if err != nil {
		return nil, fmt.Errorf("discover what %s holds: %w", scope.Principal, err)
	}
	return held, nil
}

// concludeSQL is of an open event only: what a closed cascade has reported does not change.
// A secret that nothing needs any more is erased; a probe after an expiry needs it.
const concludeSQL = `
		update inventory set state = $4, reason = $5, event_id = $3, updated_at = now(),
		       secret = case when $4 in ('revoked', 'verified') then null else secret end
		 where tenant_id = $1 and id = $2
		   and (state in ('live', 'ending', 'survivor') or (state = 'waived' and $4 <> 'survivor'))
		   and exists (select 1 from lifecycle_events e where e.tenant_id = $1 and e.id = $3 and e.closed_at is null)`

// Conclude stores an item's state after an attempt, with the last records of its evidence,
// and releases the attempt's lease. It leaves the item unchanged if the event is closed, if
// the item is already dead or released, or if a waived item would become a survivor.
// Error: [ErrLeaseLost].
func (s *Store) Conclude(ctx context.Context, tenant uuid.UUID, a Attempt, state State, reason string, records ...evidence.Record) error {
	encoded, err := evidence.Encode(records)
	if err != nil {
		return err
	}
	held, err := database.Once(ctx, s.db, tenant, oneBool, `
		with written as (`+evidence.Insert("$6")+`),
		concluded as (`+concludeSQL+` and `+holds("$7")+`),
		yielded as (delete from account_leases where tenant_id = $1 and holder = $7)
		select `+holds("$7"), tenant, a.Item, a.Event, state, reason, string(encoded), a.Holder)
	if err != nil {
		return fmt.Errorf("conclude item %s: %w", a.Item, err)
	}
	if !held {
		return ErrLeaseLost
	}
	return nil
}

// Abandon concludes an item as a survivor, and ends the lease of whichever attempt of the
// cascade is at it: that attempt acts no more.
func (s *Store) Abandon(ctx context.Context, tenant, id, event uuid.UUID, reason string) error {
	return s.exec(ctx, tenant, "abandon item "+id.String(), `
		with concluded as (`+concludeSQL+`)
		delete from account_leases where tenant_id = $1 and event_id = $3 and item_id = $2`, tenant, id, event, Survivor, reason)
}

// Opened is an item with its secrets, for the activity that ends it.
type Opened struct {
	Item
	Secret seal.Secret
	// Rotates: others rely on the account now, whatever they did when it was found.
	Rotates bool
}

// Open reads an item with its secrets. Error: [ErrNotFound].
func (s *Store) Open(ctx context.Context, tenant, id uuid.UUID) (*Opened, error) {
	var secret []byte
	o, err := database.Once(ctx, s.db, tenant, func(rows pgx.Rows) (*Opened, error) {
		return pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (*Opened, error) {
			var o Opened
			err := row.Scan(append(o.fields(), &secret, &o.Rotates)...)
			return &o, err
		})
	}, `
		select `+itemColumns+`, secret, rotates(i) from inventory i where tenant_id = $1 and id = $2`, tenant, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("open item %s: %w", id, err)
	}
	o.Secret, err = s.unseal(tenant, id, secret)
	return o, err
}

// fields are where [itemColumns] are read to.
func (i *Item) fields() []any {
	return []any{
		&i.ID, &i.Principal, &i.Agent, &i.Kind, &i.Connector, &i.Reference, &i.Account, &i.Shared, &i.ReliedOnBy, &i.Entitlement, &i.Scopes,
		&i.IssuedAt, &i.ExpiresAt, &i.State, &i.Reason, &i.Event, &i.WaivedUntil, &i.CreatedAt, &i.UpdatedAt,
	}
}

func (s *Store) unseal(tenant, id uuid.UUID, sealed []byte) (seal.Secret, error) {
	if sealed == nil {
		return "", nil
	}
	secret, err := s.sealer.Open(tenant, id, sealed)
	return seal.Secret(secret), err
}

// Ending returns the principal and the agents that end with it.
func (s *Store) Ending(ctx context.Context, tenant, principal uuid.UUID) ([]uuid.UUID, error) {
	ids, err := database.Once(ctx, s.db, tenant, ids, `
		select $2::uuid union select agents_ending_with($1, $2)`, tenant, principal)
	if err != nil {
		return nil, fmt.Errorf("look for the agents of %s: %w", principal, err)
	}
	return ids, nil
}

func ids(rows pgx.Rows) ([]uuid.UUID, error) { return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID]) }

// managerSQL is who takes the agents of a user that nobody else owns, where the
// tenant's policy says so and the manager is here.
const managerSQL = `
	select m.id from resources r
	  join tenants p on p.id = $1 and p.orphans = 'manager'
	  join resources m on m.tenant_id = $1 and m.type = 'User' and m.deleted_at is null
	   and m.id::text = r.document -> 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User' -> 'manager' ->> 'value'
	 where r.tenant_id = $1 and r.id = $2 and r.type = 'User' and m.id <> $2
	   and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = m.id)`

// handOverSQL gives the agents that would end with a leaver to the leaver's
// manager, where the tenant's policy says so and the manager is here. Each is a mover.
const handOverSQL = `
	with manager as (` + managerSQL + `
	   and exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = $2)),
	adopted as (
	  insert into edges (tenant_id, source_id, attribute, target_id)
	  select $1, a, 'owners', m.id from manager m, agents_ending_with($1, $2) a
	   where exists (select 1 from edges o where o.tenant_id = $1 and o.source_id = a and o.attribute = 'owners')
	     and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = a)
	  on conflict do nothing returning source_id),
	changed as (
	  update resources r set version = r.version + 1, modified_at = now() from adopted
	   where r.tenant_id = $1 and r.id = adopted.source_id returning r.id, r.version),
	audited as (
	  insert into changes (tenant_id, resource_id, resource_type, version, trigger, actor, changed)
	  select $1, c.id, 'Agent', c.version, 'handed-over', e.actor, array['owners']
	    from changed c join lifecycle_events e on e.tenant_id = $1 and e.id = $3),
	event as (
	  insert into lifecycle_events (tenant_id, id, kind, principal_id, principal_type, trigger, actor, changed, workflow_id, due_at)
	  select $1, gen_random_uuid(), 'mover', c.id, 'Agent', 'handed-over', e.actor, array['owners'],
	         'mover/' || $1 || '/' || c.id || '/' || c.version, now()
	    from changed c join lifecycle_events e on e.tenant_id = $1 and e.id = $3)
	select id from changed`

// reopenSQL has survivors of an earlier run of a mover's cascade begun with again. They
// are not live in between: what they were granted under is lost.
const reopenSQL = `
	update inventory set state = 'ending', reason = '', updated_at = now()
	 where tenant_id = $1 and event_id = $2 and state = 'survivor'`

// withdrawSQL takes what the principal, and the agents that ended with it, were
// entitled to, where the tenant derives anything.
const withdrawSQL = `
	select withdraw_entitlements($1, array(select $2::uuid union select agents_ending_with($1, $2)), $3)
	 where exists (select 1 from computations where tenant_id = $1)`

// settleSQL has survivors of an earlier run of the cascade live again, and
// restricts the agents that ended with the principal, which their SCIM resource
// shows. A principal who is back by now orphans nobody.
const settleSQL = `
	with reopened as (
	  update inventory set state = 'live', reason = '', updated_at = now()
	   where tenant_id = $1 and event_id = $3 and state = 'survivor'),
	orphans as materialized (
	  select id from (select agents_ending_with($1, $2) as id) a
	   where id <> $2 and exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = $2)),
	restricted as (
	  insert into restrictions (tenant_id, principal_id, cause, event_id)
	  select $1, id, 'orphaned', $3 from orphans on conflict do nothing),
	shown as (
	  update resources r set active = false, document = r.document || '{"active": false}', version = r.version + 1, modified_at = now()
	    from orphans o where r.tenant_id = $1 and r.id = o.id and r.active is distinct from false
	  returning r.id, r.version),
	audited as (
	  insert into changes (tenant_id, resource_id, resource_type, version, trigger, actor, changed)
	  select $1, s.id, 'Agent', s.version, 'orphaned', e.actor, array['active']
	    from shown s join lifecycle_events e on e.tenant_id = $1 and e.id = $3)
	select id from orphans`

// Settle opens a run of a cascade: it hands over or suspends the agents that would
// go on without an active owner, and returns their ids.
func (s *Store) Settle(ctx context.Context, tenant uuid.UUID, scope Scope) (handedOver, suspended []uuid.UUID, err error) {
	args := []any{tenant, scope.Principal, scope.Event}
	collect := func(into *[]uuid.UUID) func(pgx.Rows) error {
		return func(rows pgx.Rows) (err error) {
			*into, err = ids(rows)
			return err
		}
	}
	if scope.Moves {
		return nil, nil, s.exec(ctx, tenant, "settle the cascade", reopenSQL, tenant, scope.Event)
	}
	// Whoever is being registered for, and was here before the event, is waited for: what
	// is registered later is refused.
	if err := s.exec(ctx, tenant, "wait for registrations", `select pg_advisory_xact_lock(lock_key($1, array['principal', $2::uuid::text]))`,
		tenant, scope.Principal); err != nil {
		return nil, nil, err
	}
	err = database.Together(ctx, s.db, tenant,
		database.Statement{SQL: handOverSQL, Args: args, Collect: collect(&handedOver)},
		database.Statement{SQL: settleSQL, Args: slices.Clone(args), Collect: collect(&suspended)},
		database.Statement{SQL: withdrawSQL, Args: slices.Clone(args), Collect: func(rows pgx.Rows) error { rows.Close(); return rows.Err() }})
	if err != nil {
		return nil, nil, fmt.Errorf("settle the cascade: %w", err)
	}
	return handedOver, suspended, nil
}

func (s *Store) exec(ctx context.Context, tenant uuid.UUID, what, sql string, args ...any) error {
	if _, err := database.Once(ctx, s.db, tenant, database.Nothing, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
