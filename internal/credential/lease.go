package credential

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// The errors of leases.
var (
	// ErrBusy is returned while another attempt holds the lease on the account.
	ErrBusy = errors.New("another attempt holds the lease on the account")
	// ErrLeaseLost is returned to an attempt whose lease has expired or was taken over.
	ErrLeaseLost = errors.New("the attempt lost its lease on the account; a later attempt continues")
	// ErrForeign is returned when the event does not exist or is closed, or when the item
	// is not in the event's scope.
	ErrForeign = errors.New("the credential does not belong to the cascade, or the cascade is closed")
)

// Attempt is one attempt at one item, which holds the lease on the item's account (the
// connector, kind and reference) while it acts.
type Attempt struct {
	Event    uuid.UUID
	Item     uuid.UUID
	Holder   uuid.UUID // unique to this attempt
	Workflow string
	Run      string
	Activity string
	Number   int
	Started  time.Time     // by Temporal's clock: of two attempts at one item the later wins
	Lease    time.Duration // how long others wait if the attempt dies
}

const leaseSQL = `
	with item as (select * from credentials where tenant_id = $1 and id = $2),
	-- Registrations take this lock shared: either the attempt sees a registration, or the
	-- registration sees the lease.
	locked as materialized (
	  select pg_advisory_xact_lock(lock_key($1, array['account', connector, kind, reference])) from item)
	insert into account_leases as l (tenant_id, connector, kind, reference, event_id, item_id, holder, run_id,
	  activity, attempt, started_at, expires_at)
	select $1, connector, kind, reference, $3, id, $4, $5, $6, $7, $8, clock_timestamp() + $9::interval from item, locked
	on conflict (tenant_id, connector, kind, reference) do update
	   set event_id = excluded.event_id, item_id = excluded.item_id, holder = excluded.holder,
	     run_id = excluded.run_id, activity = excluded.activity,
	       attempt = excluded.attempt, started_at = excluded.started_at, expires_at = excluded.expires_at
	 where l.expires_at < clock_timestamp()
	    or (l.event_id = excluded.event_id and l.item_id = excluded.item_id and l.started_at <= excluded.started_at)`

// openLeasedSQL reads the item after the lease was taken, so that earlier registrations of
// the account are visible. An item belongs to an event if it is marked by it, or in its scope.
const openLeasedSQL = `
	select ` + openedColumns + `,
	       exists (select 1 from account_leases l where l.tenant_id = $1 and l.holder = $4
	          and l.connector = i.connector and l.kind = i.kind and l.reference = i.reference),
	       exists (select 1 from lifecycle_events e
	          where e.tenant_id = $1 and e.id = $3 and e.closed_at is null and (e.kind = 'leaver' or e.ends)
	            and (i.event_id = e.id or (e.kind = 'leaver'
	                 and not of_later_life($1, e.sequence, i.sequence, array[i.principal_id, i.agent_id, e.principal_id])
	                 and (e.principal_id in (i.principal_id, i.agent_id)
	                      or exists (select 1 from agents_ending_with($1, e.principal_id) a
	                        where a in (i.principal_id, i.agent_id))))))
	  from credentials i where i.tenant_id = $1 and i.id = $2`

// MayUnblock is the condition that the last cascade of an item i has blocked it, which a probe saw alive before, and
// has not unblocked it since, that its holders are active, and that no other registration of the account has ended or
// is to end.
const MayUnblock = `i.state = 'live' and (
	select l.step = 'block' and l.outcome = 'done' and exists (
	         select 1 from evidence p where p.tenant_id = $1 and p.item_id = i.id and p.event_id = i.event_id
	           and p.step = 'probe-before' and p.outcome = 'alive' and p.id < l.id)
	  from evidence l
	 where l.tenant_id = $1 and l.item_id = i.id and l.event_id = i.event_id and l.step in ('block', 'unblock')
	 order by l.id desc limit 1)
	and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id in (i.principal_id, i.agent_id))
	and not exists (select 1 from credentials o where o.tenant_id = $1 and o.connector = i.connector and o.kind = i.kind
	  and o.reference = i.reference and o.id <> i.id and o.state not in ('live', 'released', 'absent'))`

// OpenBlocked takes the lease on the account of an item that a cancelled cascade has blocked, and then reads the item.
// It returns [ErrForeign] unless [MayUnblock] is true.
// Errors: [ErrNotFound], [ErrBusy], [ErrForeign].
func (s *Store) OpenBlocked(ctx context.Context, tenant uuid.UUID, a Attempt) (*Opened, error) {
	if err := s.Lease(ctx, tenant, a); err != nil {
		return nil, err
	}
	blocked, err := database.Row(ctx, s.db, tenant, pgx.RowTo[bool], `
		select exists (select 1 from credentials i join lifecycle_events e on e.tenant_id = $1 and e.id = $2
		                where i.tenant_id = $1 and i.id = $3 and i.event_id = $2
		                  and e.outcome = 'cancelled' and `+MayUnblock+`)`,
		tenant, a.Event, a.Item)
	if err == nil && !blocked {
		err = ErrForeign
	}
	var o *Opened
	if err == nil {
		o, err = s.Open(ctx, tenant, a.Item)
	}
	if err != nil {
		return nil, errors.Join(err, s.Yield(context.WithoutCancel(ctx), tenant, a.Holder))
	}
	return o, nil
}

// OpenLeased takes the lease on an item's account and then reads the item with its
// secrets. It returns an ended item without a lease.
// Errors: [ErrNotFound], [ErrBusy], [ErrForeign].
func (s *Store) OpenLeased(ctx context.Context, tenant uuid.UUID, a Attempt) (*Opened, error) {
	var o *Opened
	var secret []byte
	var leased, claimed bool
	err := database.Together(ctx, s.db, tenant,
		database.Statement{
			SQL:  leaseSQL,
			Args: []any{tenant, a.Item, a.Event, a.Holder, a.Run, a.Activity, a.Number, a.Started, a.Lease},
		},
		database.Statement{
			SQL: openLeasedSQL, Args: []any{tenant, a.Item, a.Event, a.Holder},
			Collect: func(rows pgx.Rows) (err error) {
				o, err = pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (*Opened, error) {
					var o Opened
					return &o, o.scan(row, &secret, &leased, &claimed)
				})
				return err
			},
		})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, ErrNotFound
	case err != nil:
		return nil, errors.Join(fmt.Errorf("open item %s: %w", a.Item, err), s.Yield(context.WithoutCancel(ctx),
			tenant, a.Holder))
	case o.State.Ended():
		return o, s.Yield(ctx, tenant, a.Holder)
	case !claimed:
		return nil, errors.Join(ErrForeign, s.Yield(ctx, tenant, a.Holder))
	case !leased:
		return nil, ErrBusy
	}
	if o.Secret, err = s.unseal(tenant, a.Item, secret); err != nil {
		return nil, errors.Join(err, s.Yield(ctx, tenant, a.Holder))
	}
	return o, nil
}

// Lease takes the lease on an item's account without reading the item. Error: [ErrBusy].
func (s *Store) Lease(ctx context.Context, tenant uuid.UUID, a Attempt) error {
	err := s.exec(ctx, tenant, "take a lease", leaseSQL, tenant, a.Item, a.Event, a.Holder, a.Run, a.Activity,
		a.Number, a.Started, a.Lease)
	if err != nil {
		return err
	}
	if err := s.CheckLease(ctx, tenant, a.Holder); errors.Is(err, ErrLeaseLost) {
		return ErrBusy
	} else if err != nil {
		return errors.Join(err, s.Yield(context.WithoutCancel(ctx), tenant, a.Holder))
	}
	return nil
}

// holds returns the condition that a holder's lease is valid.
func holds(param string) string {
	return `exists (select 1 from account_leases l where l.tenant_id = $1 and l.holder = ` + param + `
		and l.expires_at > clock_timestamp())`
}

// CheckLease returns [ErrLeaseLost] if the holder's lease was taken over or has expired.
func (s *Store) CheckLease(ctx context.Context, tenant, holder uuid.UUID) error {
	held, err := database.Row(ctx, s.db, tenant, pgx.RowTo[bool], `select `+holds("$2"), tenant, holder)
	if err != nil {
		return fmt.Errorf("check the lease: %w", err)
	}
	if !held {
		return ErrLeaseLost
	}
	return nil
}

// Yield deletes a lease, so that others need not wait for its expiry.
func (s *Store) Yield(ctx context.Context, tenant, holder uuid.UUID) error {
	return s.exec(ctx, tenant, "end a lease", `delete from account_leases where tenant_id = $1 and holder = $2`,
		tenant, holder)
}

// lockAccounts blocks new attempts at the accounts of registrations until the transaction
// ends. It locks in a fixed order. Error: [ErrAccountEnding], if an account is being ended or
// rotated, since a new registration would then lose its access without notice.
func lockAccounts(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, items ...New) error {
	var named, kinds, references []string
	for _, n := range items {
		named, kinds, references = append(named, n.Connector), append(kinds, string(n.Kind)), append(references, n.Reference)
	}
	if _, err := tx.Exec(ctx, `
		select pg_advisory_xact_lock_shared(k) from (
		  select distinct lock_key($1, array['account', c, k, r]) k
		    from unnest($2::text[], $3::text[], $4::text[]) a (c, k, r) order by 1) keys`,
		tenant, named, kinds, references); err != nil {
		return err
	}
	var reference *string
	err := tx.QueryRow(ctx, `
		select a.r from unnest($2::text[], $3::text[], $4::text[]) a (c, k, r)
		 where exists (select 1 from account_leases l
		         where l.tenant_id = $1 and l.connector = a.c and l.kind = a.k and l.reference = a.r
		           and l.expires_at > clock_timestamp())
		    -- The new secret of a rotation is for earlier registrations only.
		    or exists (select 1 from rotations o
		         where o.tenant_id = $1 and o.connector = a.c and o.kind = a.k and o.reference = a.r
		           and o.step in ('made', 'proven', 'published', 'retired'))
		    -- Between two attempts, if one has acted already or a rotation has begun.
		    or exists (select 1 from credentials i join lifecycle_events e on e.tenant_id = $1 and e.id = i.event_id
		      and e.closed_at is null
		         where i.tenant_id = $1 and i.connector = a.c and i.kind = a.k and i.reference = a.r and i.state = 'ending'
		           and (exists (select 1 from evidence v where v.tenant_id = $1 and v.item_id = i.id
		             and v.event_id = i.event_id
		                          and v.step in ('block', 'revoke', 'rotate', 'cancel'))
		             or exists (select 1 from rotations o where o.tenant_id = $1 and o.connector = a.c
		               and o.kind = a.k and o.reference = a.r
		                          and o.step not in ('done', 'abandoned'))))
		 limit 1`, tenant, named, kinds, references).Scan(&reference)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", ErrAccountEnding, *reference)
}
