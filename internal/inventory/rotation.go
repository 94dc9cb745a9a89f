package inventory

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/seal"
)

// Step is how far a rotation has come. Each step can be repeated.
type Step string

// The steps, in their order.
const (
	Begun     Step = "begun"     // the new secret is sealed here, and nowhere else
	Made      Step = "made"      // the downstream has it, beside the old one where it can
	Proven    Step = "proven"    // it was seen to work
	Published Step = "published" // the remaining holders have it
	Retired   Step = "retired"   // the old one is ended
	Finished  Step = "done"
	// Abandoned: nobody is left to go on with the account; what was made is ended.
	Abandoned Step = "abandoned"
)

// Rotation is the rotation of one account, which any number of cascades may
// meet at.
type Rotation struct {
	ID           uuid.UUID
	Step         Step
	NewReference string // where the new secret has another name than the old one
	NewSecret    seal.Secret
	// Handed: the new secret was published for the item whose cascade asks, whose
	// holder leaves now: it needs another once this one is finished.
	Handed bool
}

// Reached tells whether the rotation has come as far as a step.
func (r *Rotation) Reached(step Step) bool {
	order := map[Step]int{Begun: 0, Made: 1, Proven: 2, Published: 3, Retired: 4, Finished: 5}
	return order[r.Step] >= order[step]
}

// ErrRotating says that another cascade is at the account now.
var ErrRotating = errors.New("another cascade is rotating the account")

// BeginRotation takes an item's account for lease, and returns its open
// rotation, or a new one whose secret is sealed and stored before anything
// downstream changes: a crash later cannot lose it. by names who takes it, and
// may take it again. Error: [ErrRotating].
func (s *Store) BeginRotation(ctx context.Context, tenant uuid.UUID, item *Item, by string, lease time.Duration) (*Rotation, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
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
			insert into rotations as r (tenant_id, id, connector, kind, reference, new_secret, leased_by, leased_until)
			values ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + $8::interval)
			on conflict (tenant_id, connector, kind, reference) where step not in ('done', 'abandoned') do update
			   set leased_by = excluded.leased_by, leased_until = excluded.leased_until
			 where r.leased_by is null or r.leased_by = excluded.leased_by or r.leased_until < clock_timestamp()
			returning id, step, new_reference, new_secret,
			  exists (select 1 from rotation_holders h where h.tenant_id = r.tenant_id and h.rotation_id = r.id and h.item_id = $9)`,
			tenant, id, item.Connector, item.Kind, item.Reference, sealed, by, lease, item.ID).Scan(&r.ID, &r.Step, &r.NewReference, &sealed, &r.Handed)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrRotating
	}
	if err != nil {
		return nil, fmt.Errorf("begin the rotation of %s: %w", item.ID, err)
	}
	r.NewSecret, err = s.unseal(tenant, r.ID, sealed)
	return &r, err
}

// TakeRotation takes an open rotation for lease, and no new one in its place.
// Error: [ErrRotating], where another has it, or has finished it.
func (s *Store) TakeRotation(ctx context.Context, tenant uuid.UUID, r *Rotation, by string, lease time.Duration) error {
	var sealed []byte
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			update rotations set leased_by = $3, leased_until = clock_timestamp() + $4::interval
			 where tenant_id = $1 and id = $2 and step not in ('done', 'abandoned')
			   and (leased_by is null or leased_by = $3 or leased_until < clock_timestamp())
			returning step, new_reference, new_secret`, tenant, r.ID, by, lease).Scan(&r.Step, &r.NewReference, &sealed)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrRotating
	}
	if err != nil {
		return fmt.Errorf("take a rotation: %w", err)
	}
	r.NewSecret, err = s.unseal(tenant, r.ID, sealed)
	return err
}

// OpenRotation returns the unfinished rotation of an item's account, or nil.
func (s *Store) OpenRotation(ctx context.Context, tenant uuid.UUID, item *Item) (*Rotation, error) {
	r, err := database.Once(ctx, s.db, tenant, func(rows pgx.Rows) (*Rotation, error) {
		return pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (*Rotation, error) {
			var r Rotation
			return &r, row.Scan(&r.ID, &r.Step, &r.NewReference)
		})
	}, `
		select id, step, new_reference from rotations
		 where tenant_id = $1 and connector = $2 and kind = $3 and reference = $4 and step not in ('done', 'abandoned')`, tenant, item.Connector, item.Kind, item.Reference)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // no rotation is a value here
	}
	if err != nil {
		return nil, fmt.Errorf("look for a rotation of %s: %w", item.ID, err)
	}
	return r, nil
}

// Advance stores that a rotation has come as far as a step, with what shows it.
// Whoever lost the lease meanwhile is told. Error: [ErrRotating].
func (s *Store) Advance(ctx context.Context, tenant uuid.UUID, r *Rotation, to Step, by string, records ...evidence.Record) error {
	encoded, err := evidence.Encode(records)
	if err != nil {
		return err
	}
	advanced, err := database.Once(ctx, s.db, tenant, func(rows pgx.Rows) (int, error) {
		ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		return len(ids), err
	}, `
		with written as (`+evidence.Insert("$6")+`)
		update rotations set step = $3, new_reference = $4, updated_at = now() where tenant_id = $1 and id = $2 and leased_by = $5
		returning id`, tenant, r.ID, to, r.NewReference, by, string(encoded))
	if err != nil {
		return fmt.Errorf("store the step %s of a rotation: %w", to, err)
	}
	if advanced == 0 {
		return ErrRotating
	}
	r.Step = to
	return nil
}

// Yield lets the next cascade have the account.
func (s *Store) Yield(ctx context.Context, tenant uuid.UUID, r *Rotation, by string) error {
	return s.exec(ctx, tenant, "yield a rotation", `
		update rotations set leased_by = null, leased_until = null where tenant_id = $1 and id = $2 and leased_by = $3`, tenant, r.ID, by)
}

// Holders returns the items whose holders go on with the account now, and who else
// relies on it by any of its rows; and notes that the new secret is for them:
// whoever of them leaves later needs another rotation.
func (s *Store) Holders(ctx context.Context, tenant, item uuid.UUID, r *Rotation) (holders []uuid.UUID, reliedOnBy []string, err error) {
	_, err = database.Once(ctx, s.db, tenant, func(rows pgx.Rows) (struct{}, error) {
		return pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
			return struct{}{}, row.Scan(&holders, &reliedOnBy)
		})
	}, `
		with item as materialized (select i from inventory i where i.tenant_id = $1 and i.id = $2),
		holders as materialized (select h from item, other_holders(item.i) h),
		noted as (
		  insert into rotation_holders (tenant_id, rotation_id, item_id) select $1, $3, h from holders on conflict do nothing)
		select array(select h from holders order by h),
		       array(select distinct u from item, inventory o, unnest(o.relied_on_by) u
		              where o.tenant_id = $1 and o.connector = (item.i).connector and o.kind = (item.i).kind and o.reference = (item.i).reference
		              order by u)`, tenant, item, r.ID)
	if err != nil {
		return nil, nil, fmt.Errorf("look for the account's other holders: %w", err)
	}
	return holders, reliedOnBy, nil
}

// FinishRotation gives the account's remaining rows the new secret, and the new
// name where it has one.
func (s *Store) FinishRotation(ctx context.Context, tenant uuid.UUID, r *Rotation, by string) error {
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		var finished bool
		err := tx.QueryRow(ctx, `
			update rotations set step = 'done', updated_at = now(), leased_by = null, leased_until = null
			 where tenant_id = $1 and id = $2 and leased_by = $3 returning true`, tenant, r.ID, by).Scan(&finished)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrRotating
		}
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			select i.id from inventory i join rotation_holders h on h.tenant_id = i.tenant_id and h.item_id = i.id
			 where i.tenant_id = $1 and h.rotation_id = $2 and i.state in ('live', 'ending', 'survivor', 'waived')
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
		return nil
	})
	if err != nil {
		return fmt.Errorf("finish a rotation: %w", err)
	}
	return nil
}

// handOver gives one row the new secret, and what any row of the account says of
// others who rely on it: the leaver's own row tells it no more. What its holder has
// registered again, under the new reference, takes its place.
func (s *Store) handOver(ctx context.Context, tx pgx.Tx, tenant, holder uuid.UUID, r *Rotation) error {
	sealed, err := s.sealer.Seal(tenant, holder, []byte(r.NewSecret.Reveal()))
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		with item as materialized (select * from inventory where tenant_id = $1 and id = $2),
		again as (
		  select exists (select 1 from item i join inventory o on o.tenant_id = $1 and o.connector = i.connector and o.kind = i.kind
		     and o.principal_id = i.principal_id and o.id <> i.id and o.reference = $4 and o.state in ('live', 'ending', 'survivor', 'waived')) yes),
		account as (
		  select bool_or(o.shared) shared, coalesce(array_agg(distinct u) filter (where u is not null), '{}') relied_on_by
		    from item i join inventory o on o.tenant_id = $1 and o.connector = i.connector and o.kind = i.kind and o.reference = i.reference
		    left join unnest(o.relied_on_by) u on true)
		update inventory i set
		       secret = case when not again.yes then $3::bytea end,
		       account = coalesce(nullif(i.account, ''), i.reference),
		       reference = case when $4 = '' or again.yes then i.reference else $4 end,
		       state = case when again.yes then 'released' else i.state end,
		       reason = case when again.yes then 'registered again after its rotation' else i.reason end,
		       shared = account.shared, relied_on_by = account.relied_on_by, updated_at = now()
		  from again, account where i.tenant_id = $1 and i.id = $2`, tenant, holder, sealed, r.NewReference)
	if err != nil {
		return fmt.Errorf("hand the new secret to item %s: %w", holder, err)
	}
	return nil
}

// RotatedWithout tells whether a rotation has ended the item's secret and was
// not for the item's holder, and what the account's reference is since: another
// cascade that met at the account did it.
func (s *Store) RotatedWithout(ctx context.Context, tenant uuid.UUID, item *Item) (reference string, rotated bool, err error) {
	reference, err = database.Once(ctx, s.db, tenant, func(rows pgx.Rows) (string, error) {
		return pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
	}, `
		select r.new_reference from rotations r
		 where r.tenant_id = $1 and r.connector = $3 and r.kind = $4 and r.reference = $5 and r.step = 'done' and r.created_at >= $6
		   and not exists (select 1 from rotation_holders h where h.tenant_id = $1 and h.rotation_id = r.id and h.item_id = $2)
		 order by r.created_at desc limit 1`,
		tenant, item.ID, item.Connector, item.Kind, item.Reference, item.CreatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("look for a rotation of %s: %w", item.ID, err)
	}
	return reference, true, nil
}
