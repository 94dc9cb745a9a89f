package inventory

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/ssf"
)

// Held is what a cascade needs to know of an item before it ends it: nothing
// secret, since it travels through Temporal.
type Held struct {
	ID        uuid.UUID
	Kind      connectors.Kind
	Connector string
	Verb      Verb
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
	// The cascade of something that an operator bound leaves other cascades' survivors alone.
	return `(i.state in ('live', 'ending')
		       or (i.state = 'survivor' and i.event_id is distinct from $2 and not exists (select 1 from event where trigger = 'bound')))
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
	held, err := database.Rows(ctx, s.db, tenant, func(row pgx.CollectableRow) (h Held, err error) {
		var reliedOn bool
		err = row.Scan(&h.ID, &h.Kind, &h.Connector, &reliedOn, &h.Blocked)
		h.Verb = EndVerb(h.Kind, reliedOn)
		return h, err
	}, `
		with `+open+`,
		found as materialized (
		  select i.id, relied_on(i, '{}') as relied_on from inventory i
		   where i.tenant_id = $1 and `+scope.found()+`
		     and (i.kind <> 'scheduled_run', i.id) > ($4::boolean, $5::uuid)
		   order by i.kind <> 'scheduled_run', i.id limit $3),
		marked as (
		  update inventory i set state = 'ending', event_id = $2, updated_at = now()
		    from found f where i.tenant_id = $1 and i.id = f.id
		     -- Said again, for what was concluded since the look: what has failed in this
		     -- run stays failed.
		     and (i.state in ('live', 'ending') or (i.state = 'survivor' and i.event_id is distinct from $2))
		  returning i.id, i.kind, i.connector, f.relied_on)
		select id, kind, connector, relied_on,
		       $6 and exists (select 1 from evidence e where e.tenant_id = $1 and e.item_id = m.id and e.event_id = $2 and e.step = 'block')
		  from marked m order by kind <> 'scheduled_run', id`,
		tenant, scope.Event, look.Limit,
		look.After.ID != uuid.Nil && look.After.Kind != connectors.ScheduledRun, look.After.ID, look.Held)
	if err != nil {
		return nil, fmt.Errorf("discover what %s holds: %w", scope.Principal, err)
	}
	return held, nil
}

// concludeSQL is of an open event only: what a closed cascade has reported does not change.
// A secret that nothing needs any more is erased; a probe after an expiry needs it.
const concludeSQL = `
		update inventory set state = $4, reason = $5, event_id = $3, updated_at = now(),
		       secret = case when $4 in ('revoked', 'verified', 'absent') then null else secret end
		 where tenant_id = $1 and id = $2
		   and (state in ('live', 'ending', 'survivor') or (state = 'waived' and $4 <> 'survivor'))
		   and exists (select 1 from lifecycle_events e where e.tenant_id = $1 and e.id = $3 and e.closed_at is null)`

// Conclude stores an item's state after an attempt, with the last records of its evidence
// and the signal that it has ended, and releases the attempt's lease. It leaves the item
// unchanged if the event is closed, if the item is already dead or released, or if a waived
// item would become a survivor.
// Error: [ErrLeaseLost].
func (s *Store) Conclude(ctx context.Context, tenant uuid.UUID, a Attempt, o *Opened, state State, reason string, records ...evidence.Record) error {
	encoded, err := evidence.Encode(records)
	if err != nil {
		return err
	}
	var held bool
	statements := []database.Statement{{
		SQL: `
		with written as (` + evidence.Insert("$6") + `),
		concluded as (` + concludeSQL + ` and ` + holds("$7") + `),
		yielded as (delete from account_leases where tenant_id = $1 and holder = $7)
		select ` + holds("$7"),
		Args:    []any{tenant, a.Item, a.Event, state, reason, string(encoded), a.Holder},
		Collect: database.Fields(&held),
	}}
	if state == Revoked || state == Verified {
		statements = append(statements, ssf.RecordCredential(tenant, a.Item,
			ssf.CredentialRevoked(o.Principal, o.PrincipalType, a.Workflow, a.Item, string(o.Kind), o.Connector, string(state))))
	}
	err = database.Together(ctx, s.db, tenant, statements...)
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
	Secret        connectors.Secret
	PrincipalType string
	// Verb is how it is ended now, whatever it was when it was found.
	Verb Verb
}

// openedColumns are those of an item i, its secret and what decides its verb.
const openedColumns = itemColumns + `, secret, relied_on(i, '{}'),
	(select r.type from resources r where r.tenant_id = i.tenant_id and r.id = i.principal_id)`

// scan reads [openedColumns], and others behind them.
func (o *Opened) scan(row pgx.CollectableRow, secret *[]byte, others ...any) error {
	var reliedOn bool
	err := row.Scan(append(append(o.fields(), secret, &reliedOn, &o.PrincipalType), others...)...)
	o.Verb = EndVerb(o.Kind, reliedOn)
	return err
}

// Open reads an item with its secrets. Error: [ErrNotFound].
func (s *Store) Open(ctx context.Context, tenant, id uuid.UUID) (*Opened, error) {
	var secret []byte
	o, err := database.Row(ctx, s.db, tenant, func(row pgx.CollectableRow) (*Opened, error) {
		var o Opened
		return &o, o.scan(row, &secret)
	}, `
		select `+openedColumns+` from inventory i where tenant_id = $1 and id = $2`, tenant, id)
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

func (s *Store) unseal(tenant, id uuid.UUID, sealed []byte) (connectors.Secret, error) {
	if sealed == nil {
		return "", nil
	}
	secret, err := s.sealer.Open(tenant, id, sealed)
	return connectors.Secret(secret), err
}

// Ending returns the principal and the agents that end with it.
func (s *Store) Ending(ctx context.Context, tenant, principal uuid.UUID) ([]uuid.UUID, error) {
	ids, err := database.Rows(ctx, s.db, tenant, pgx.RowTo[uuid.UUID], `
		select $2::uuid union select agents_ending_with($1, $2)`, tenant, principal)
	if err != nil {
		return nil, fmt.Errorf("look for the agents of %s: %w", principal, err)
	}
	return ids, nil
}

// Settle opens a run of a cascade. It waits for registrations of its principal that are
// under way, since what is registered later is refused, and reopens the survivors of an
// earlier run: as live ones, or, of a mover, as those that are being ended, since what they
// were granted under is lost.
func (s *Store) Settle(ctx context.Context, tenant uuid.UUID, scope Scope) error {
	if scope.Moves {
		return s.exec(ctx, tenant, "settle the cascade", reopenSQL, tenant, scope.Event, Ending)
	}
	err := database.Together(ctx, s.db, tenant,
		database.Statement{SQL: `select pg_advisory_xact_lock(lock_key($1, array['principal', $2::uuid::text]))`, Args: []any{tenant, scope.Principal}},
		database.Statement{SQL: reopenSQL, Args: []any{tenant, scope.Event, Live}})
	if err != nil {
		return fmt.Errorf("settle the cascade: %w", err)
	}
	return nil
}

const reopenSQL = `
	update inventory set state = $3, reason = '', updated_at = now()
	 where tenant_id = $1 and event_id = $2 and state = 'survivor'`

func (s *Store) exec(ctx context.Context, tenant uuid.UUID, what, sql string, args ...any) error {
	if err := database.Exec(ctx, s.db, tenant, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
