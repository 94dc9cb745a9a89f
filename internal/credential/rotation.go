package credential

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/evidence"
)

// Step is the progress of a rotation. Each step can be repeated.
type Step string

// The steps, in their order.
const (
	Begun     Step = "begun"     // the new secret is stored here, sealed; one that the downstream generates is there, too
	Made      Step = "made"      // the downstream has the new secret, beside the old one if possible
	Proven    Step = "proven"    // the new secret was seen to work
	Published Step = "published" // the remaining holders have the new secret
	Retired   Step = "retired"   // the old secret is ended
	Finished  Step = "done"
	// Abandoned: the account has no remaining holders, or the new secret does not work; the new secret is ended.
	Abandoned Step = "abandoned"
)

// Rotation is the rotation of one account. Several cascades may take part in it.
type Rotation struct {
	ID           uuid.UUID
	Step         Step
	Sequence     int64  // orders the rotations of an account
	NewReference string // set if the new secret has another reference than the old one
	NewSecret    connectors.Secret
	// Handed: the new secret was published for the item of the asking cascade, whose holder
	// is leaving: the account needs another rotation after this one.
	Handed    bool
	CreatedAt time.Time
}

// Reached reports whether the rotation has reached a step.
func (r *Rotation) Reached(step Step) bool {
	order := map[Step]int{Begun: 0, Made: 1, Proven: 2, Published: 3, Retired: 4, Finished: 5}
	return order[r.Step] >= order[step]
}

// BeginRotation returns the open rotation of an item's account, or a new one. The new secret
// is sealed and stored before anything downstream changes, so that a crash cannot lose it. It
// is for the other registrations in proven; nil stands for all. holder must have the account's
// lease. Error: [ErrLeaseLost].
func (s *Store) BeginRotation(ctx context.Context, tenant uuid.UUID, item *Item, proven []uuid.UUID,
	holder uuid.UUID,
) (*Rotation, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("generate an ID: %w", err)
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails, see crypto/rand
	sealed, err := s.sealer.Seal(tenant, id, []byte(base64.RawURLEncoding.EncodeToString(raw)))
	if err != nil {
		return nil, err
	}
	var r Rotation
	err = s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			insert into rotations as r (tenant_id, id, connector, kind, reference, new_secret, proven)
			select $1, $2, $3, $4, $5, $6, $9 where `+holds("$7")+`
			on conflict (tenant_id, connector, kind, reference) where step not in ('done', 'abandoned') do update
			   set updated_at = now(), proven = case when r.step = 'begun' then excluded.proven else r.proven end
			returning id, step, sequence, new_reference, new_secret,
			  exists (select 1 from rotation_holders h where h.tenant_id = r.tenant_id and h.rotation_id = r.id
			    and h.item_id = $8), created_at`,
			tenant, id, item.Connector, item.Kind, item.Reference, sealed, holder, item.ID, proven).
			Scan(&r.ID, &r.Step, &r.Sequence, &r.NewReference, &sealed, &r.Handed, &r.CreatedAt)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrLeaseLost
	}
	if err != nil {
		return nil, fmt.Errorf("begin the rotation of %s: %w", item.ID, err)
	}
	r.NewSecret, err = s.unseal(tenant, r.ID, sealed)
	return &r, err
}

// OpenRotation returns the unfinished rotation of an item's account, or nil.
func (s *Store) OpenRotation(ctx context.Context, tenant uuid.UUID, item *Item) (*Rotation, error) {
	var sealed []byte
	r, err := database.Row(ctx, s.db, tenant, func(row pgx.CollectableRow) (*Rotation, error) {
		var r Rotation
		return &r, row.Scan(&r.ID, &r.Step, &r.Sequence, &r.NewReference, &sealed)
	}, `
		select id, step, sequence, new_reference, new_secret from rotations
		 where tenant_id = $1 and connector = $2 and kind = $3 and reference = $4
		   and step not in ('done', 'abandoned')`, tenant, item.Connector, item.Kind, item.Reference)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // nil stands for no rotation
	}
	if err != nil {
		return nil, fmt.Errorf("look up the rotation of %s: %w", item.ID, err)
	}
	r.NewSecret, err = s.unseal(tenant, r.ID, sealed)
	return r, err
}

// Advance stores that a rotation has reached a step, with its new reference and secret and the
// evidence. The step may be an earlier one if a probe contradicts a later one. The secret of an
// abandoned rotation is erased. Error: [ErrLeaseLost].
func (s *Store) Advance(ctx context.Context, tenant uuid.UUID, r *Rotation, to Step, holder uuid.UUID,
	records ...evidence.Record,
) error {
	encoded, err := evidence.Encode(records)
	if err != nil {
		return err
	}
	sealed, err := s.sealer.Seal(tenant, r.ID, []byte(r.NewSecret.Reveal()))
	if err != nil {
		return err
	}
	advanced, err := database.Rows(ctx, s.db, tenant, pgx.RowTo[uuid.UUID], `
		with written as (`+evidence.Insert("$6")+`)
		update rotations set step = $3, new_reference = $4, updated_at = now(),
		       new_secret = case when $3 = 'abandoned' then null else $7::bytea end
		 where tenant_id = $1 and id = $2 and step not in ('done', 'abandoned') and `+holds("$5")+`
		returning id`, tenant, r.ID, to, r.NewReference, holder, string(encoded), sealed)
	if err != nil {
		return fmt.Errorf("store step %s of a rotation: %w", to, err)
	}
	if len(advanced) == 0 {
		return ErrLeaseLost
	}
	r.Step = to
	return nil
}

// Holders returns the items whose holders keep the account, and the names of the other
// parties that rely on it by any of its rows, as far as these registrations are proven. It
// records that the new secret is for them: if one of them leaves later, the account needs
// another rotation.
func (s *Store) Holders(ctx context.Context, tenant, item uuid.UUID,
	r *Rotation,
) (holders []uuid.UUID, reliedOnBy []string, err error) {
	_, err = database.Row(ctx, s.db, tenant, func(row pgx.CollectableRow) (struct{}, error) {
		return struct{}{}, row.Scan(&holders, &reliedOnBy)
	}, `
		with item as materialized (select i from credentials i where i.tenant_id = $1 and i.id = $2),
		rotation as materialized (select proven from rotations where tenant_id = $1 and id = $3),
		holders as materialized (select h from rotation r, item, other_holders(item.i) h where r.proven is null
		  or h = any (r.proven)),
		noted as (
		  insert into rotation_holders (tenant_id, rotation_id, item_id) select $1, $3, h from holders on conflict do nothing)
		select array(select h from holders order by h),
		       array(select distinct u from rotation r, item, credentials o, unnest(o.relied_on_by) u
		              where o.tenant_id = $1 and o.connector = (item.i).connector and o.kind = (item.i).kind
		                and o.reference = (item.i).reference
		                and (r.proven is null or o.id = any (r.proven))
		              order by u)`, tenant, item, r.ID)
	if err != nil {
		return nil, nil, fmt.Errorf("list other holders of the account of %s: %w", item, err)
	}
	return holders, reliedOnBy, nil
}

// CoHolder is another registration of an item's account.
type CoHolder struct {
	Opened
	GoesOn bool // its holder is not restricted, and it is not being ended
}

// CoHolders returns up to limit other registrations of an item's account, with their secrets,
// those with GoesOn first.
func (s *Store) CoHolders(ctx context.Context, tenant, item uuid.UUID, limit int) ([]CoHolder, error) {
	var sealed [][]byte
	found, err := database.Rows(ctx, s.db, tenant, func(row pgx.CollectableRow) (o CoHolder, err error) {
		var secret []byte
		err = row.Scan(append(o.Fields(), &secret, &o.GoesOn)...)
		sealed = append(sealed, secret)
		return o, err
	}, `
		with item as materialized (select i from credentials i where i.tenant_id = $1 and i.id = $2),
		going as materialized (select h from item, other_holders(item.i) h)
		select `+Columns+`, secret, id in (select h from going) as goes_on from credentials
		 where tenant_id = $1 and id <> $2 and state in ('live', 'ending', 'failed', 'waived')
		   and (connector, kind, reference) = (select (i).connector, (i).kind, (i).reference from item)
		 order by goes_on desc, id limit $3`, tenant, item, limit)
	if err != nil {
		return nil, fmt.Errorf("list other holders of the account of %s: %w", item, err)
	}
	for n := range found {
		if found[n].Secret, err = s.unseal(tenant, found[n].ID, sealed[n]); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// withheld is the reason of a live item that does not get the new secret of its account.
const withheld = "its account was ended for another holder, and this registration did not prove that it holds the " +
	"account: register the current secret"

// Withhold records in live items that their account was ended, and that they get no new secret.
func (s *Store) Withhold(ctx context.Context, tenant uuid.UUID, items []uuid.UUID) error {
	if len(items) == 0 {
		return nil
	}
	return s.exec(ctx, tenant, "record withheld secrets", `
		update credentials set updated_at = now(), reason = $3
		 where tenant_id = $1 and id = any ($2) and state = 'live'`, tenant, items, withheld)
}

// FinishUnder takes a lease and finishes the retired rotation of an item's account. It does
// nothing if there is none, or if another attempt holds the lease.
func (s *Store) FinishUnder(ctx context.Context, tenant uuid.UUID, item *Item, lease Attempt) error {
	if err := s.Lease(ctx, tenant, lease); errors.Is(err, ErrBusy) {
		return nil // the attempt that holds it finishes the rotation, or the reconciler does
	} else if err != nil {
		return err
	}
	// Read under the lease, since a rotation that was read before may be finished by now, and
	// another one begun.
	r, err := s.OpenRotation(ctx, tenant, item)
	if err == nil && r != nil && r.Reached(Retired) {
		err = s.FinishRotation(ctx, tenant, r, lease.Holder)
	}
	return errors.Join(err, s.Yield(context.WithoutCancel(ctx), tenant, lease.Holder))
}

// FinishStalled finishes rotations whose old secret was retired at least 5 minutes ago and that
// no attempt has finished, such as those of a cancelled cascade. It stores the new secret in
// the account's remaining rows.
func (s *Store) FinishStalled(ctx context.Context, tenant uuid.UUID) error {
	stalled, err := database.Rows(ctx, s.db, tenant, pgx.RowTo[uuid.UUID], `
		select distinct on (r.id) i.id from rotations r
		  join credentials i on i.tenant_id = r.tenant_id and i.connector = r.connector and i.kind = r.kind
		    and i.reference = r.reference
		 where r.tenant_id = $1 and r.step = 'retired' and r.updated_at < now() - interval '5 minutes'`, tenant)
	if err != nil {
		return fmt.Errorf("list unfinished rotations: %w", err)
	}
	var failed error
	for _, id := range stalled {
		item, err := s.Open(ctx, tenant, id)
		if err == nil {
			lease := Attempt{
				Item: id, Holder: uuid.New(), Run: "reconciler", Activity: "finish-rotation",
				Started: time.Now(), Lease: time.Minute,
			}
			err = s.FinishUnder(ctx, tenant, &item.Item, lease)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// FinishRotation stores the new secret, and the new reference if there is one, in the
// account's remaining rows, and in the others that they do not get it. Error: [ErrLeaseLost].
func (s *Store) FinishRotation(ctx context.Context, tenant uuid.UUID, r *Rotation, holder uuid.UUID) error {
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		var finished bool
		err := tx.QueryRow(ctx, `
			update rotations set step = 'done', updated_at = now(), new_secret = null
			 where tenant_id = $1 and id = $2 and step = 'retired' and `+holds("$3")+` returning true`, tenant,
			r.ID, holder).Scan(&finished)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrLeaseLost
		}
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			select i.id from credentials i join rotation_holders h on h.tenant_id = i.tenant_id and h.item_id = i.id
			 where i.tenant_id = $1 and h.rotation_id = $2 and i.state in ('live', 'ending', 'failed', 'waived')
			 order by i.id for no key update of i`, tenant, r.ID)
		if err != nil {
			return err
		}
		holders, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return err
		}
		for _, holder := range holders {
			if err := s.handOver(ctx, tx, tenant, holder, r); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `
			update credentials i set updated_at = now(), reason = $3 from rotations r
			 where r.tenant_id = $1 and r.id = $2 and r.proven is not null and i.tenant_id = $1 and i.state = 'live'
			   and (i.connector, i.kind, i.reference) = (r.connector, r.kind, r.reference)
			   and not exists (select 1 from rotation_holders h where h.tenant_id = $1 and h.rotation_id = $2
			     and h.item_id = i.id)`, tenant, r.ID, withheld)
		return err
	})
	if err != nil {
		return fmt.Errorf("finish rotation %s: %w", r.ID, err)
	}
	return nil
}

// handOver stores the new secret in one row, with Shared and ReliedOnBy merged from all rows
// of the account, since the leaver's row no longer counts. If the holder has registered the
// new reference again, that registration replaces the row.
func (s *Store) handOver(ctx context.Context, tx pgx.Tx, tenant, holder uuid.UUID, r *Rotation) error {
	sealed, err := s.sealer.Seal(tenant, holder, []byte(r.NewSecret.Reveal()))
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		with item as materialized (select * from credentials where tenant_id = $1 and id = $2),
		again as (
		  select exists (select 1 from item i join credentials o on o.tenant_id = $1 and o.connector = i.connector
		    and o.kind = i.kind
		     and o.principal_id = i.principal_id and o.id <> i.id and o.reference = $4
		       and o.state in ('live', 'ending', 'failed', 'waived')) yes),
		account as (
		  select bool_or(o.shared) shared, coalesce(array_agg(distinct u) filter (where u is not null), '{}') relied_on_by
		    from item i join credentials o on o.tenant_id = $1 and o.connector = i.connector and o.kind = i.kind
		      and o.reference = i.reference
		    join rotations r on r.tenant_id = $1 and r.id = $5 and (r.proven is null or o.id = any (r.proven))
		    left join unnest(o.relied_on_by) u on true)
		update credentials i set
		       secret = case when not again.yes then $3::bytea end,
		       account = coalesce(nullif(i.account, ''), i.reference),
		       reference = case when $4 = '' or again.yes then i.reference else $4 end,
		       state = case when again.yes then 'released' else i.state end,
		       reason = case when again.yes then 'registered again after its rotation' else i.reason end,
		       shared = account.shared, relied_on_by = account.relied_on_by, updated_at = now()
		  from again, account where i.tenant_id = $1 and i.id = $2`, tenant, holder, sealed, r.NewReference, r.ID)
	if err != nil {
		return fmt.Errorf("store the new secret in item %s: %w", holder, err)
	}
	return nil
}

// RotatedWithout reports whether a rotation by another cascade has ended the item's secret
// and was not for the item's holder, and returns the account's reference since then.
func (s *Store) RotatedWithout(ctx context.Context, tenant uuid.UUID,
	item *Item,
) (reference string, rotated bool, err error) {
	reference, err = database.Row(ctx, s.db, tenant, pgx.RowTo[string], `
		select r.new_reference from rotations r
		 where r.tenant_id = $1 and r.connector = $3 and r.kind = $4 and r.reference = $5 and r.step = 'done'
		   and r.created_at >= $6
		   and not exists (select 1 from rotation_holders h where h.tenant_id = $1 and h.rotation_id = r.id
		     and h.item_id = $2)
		 order by r.created_at desc limit 1`,
		tenant, item.ID, item.Connector, item.Kind, item.Reference, item.CreatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("look up rotations of %s: %w", item.ID, err)
	}
	return reference, true, nil
}
