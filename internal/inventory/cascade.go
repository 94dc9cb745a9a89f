package inventory

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"

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
	Shared    bool
}

// Scope selects what one cascade ends.
type Scope struct {
	Event     uuid.UUID
	Principal uuid.UUID
	Sequence  int64 // what was registered later belongs to a later life (I3)
}

// Discover returns at most limit items that the cascade has yet to end,
// scheduled runs first, since they can mint: what was issued for the principal,
// what it holds as an agent, what the agents hold that end with it, and what
// survived other cascades. It marks them as being ended by
// this cascade; they are found again until they are concluded.
func (s *Store) Discover(ctx context.Context, tenant uuid.UUID, scope Scope, limit int) ([]Held, error) {
	held, err := database.Once(ctx, s.db, tenant, func(rows pgx.Rows) ([]Held, error) {
		return pgx.CollectRows(rows, pgx.RowToStructByPos[Held])
	}, `
		with ending as materialized (select agents_ending_with($1, $2) as id),
		found as materialized (
		  select i.id from inventory i
		   where i.tenant_id = $1 and i.sequence <= $3
		     and (i.state in ('live', 'ending') or (i.state = 'survivor' and i.event_id is distinct from $5))
		     and (i.principal_id = $2 or i.agent_id = $2 or i.principal_id in (select id from ending) or i.agent_id in (select id from ending))
		   order by (i.kind = 'scheduled_run') desc, i.id limit $4),
		marked as (
		  update inventory i set state = 'ending', event_id = $5, updated_at = now()
		    from found f where i.tenant_id = $1 and i.id = f.id
		     -- Said again, for what was concluded since the look.
		     and i.state in ('live', 'ending', 'survivor')
		  returning i.id, i.kind, i.connector, i.shared)
		select id, kind, connector, shared from marked order by (kind = 'scheduled_run') desc, id`,
		tenant, scope.Principal, scope.Sequence, limit, scope.Event)
	if err != nil {
		return nil, fmt.Errorf("discover what %s holds: %w", scope.Principal, err)
	}
	return held, nil
}

// Conclude stores how an item stands after a cascade was at it, and the last
// records of its evidence with it. What is dead stays so, whatever a late
// second attempt has to say.
func (s *Store) Conclude(ctx context.Context, tenant, id, event uuid.UUID, state State, reason string, records ...evidence.Record) error {
	encoded, err := evidence.Encode(records)
	if err != nil {
		return err
	}
	return s.exec(ctx, tenant, "conclude item", `
		with written as (`+evidence.Insert("$6")+`)
		update inventory set state = $4, reason = $5, event_id = $3, updated_at = now()
		 where tenant_id = $1 and id = $2 and state in ('live', 'ending', 'survivor')`, tenant, id, event, state, reason, string(encoded))
}

// Opened is an item with its secrets, for the activity that ends it.
type Opened struct {
	Item
	Secret  seal.Secret
	Pending seal.Secret // what a rotation is about to put in its place
}

// Open reads an item with its secrets. Error: [ErrNotFound].
func (s *Store) Open(ctx context.Context, tenant, id uuid.UUID) (*Opened, error) {
	var secret, pending []byte
	o, err := database.Once(ctx, s.db, tenant, func(rows pgx.Rows) (*Opened, error) {
		return pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (*Opened, error) {
			var o Opened
			err := row.Scan(&o.ID, &o.Principal, &o.Agent, &o.Kind, &o.Connector, &o.Reference, &o.Shared, &o.Scopes, &o.IssuedAt, &o.ExpiresAt,
				&o.State, &o.Reason, &o.Event, &o.CreatedAt, &o.UpdatedAt, &secret, &pending)
			return &o, err
		})
	}, `
		select `+itemColumns+`, secret, pending_secret from inventory where tenant_id = $1 and id = $2`, tenant, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("open item %s: %w", id, err)
	}
	if o.Secret, err = s.unseal(tenant, id, secret); err != nil {
		return nil, err
	}
	if o.Pending, err = s.unseal(tenant, id, pending); err != nil {
		return nil, err
	}
	return o, nil
}

func (s *Store) unseal(tenant, id uuid.UUID, sealed []byte) (seal.Secret, error) {
	if sealed == nil {
		return "", nil
	}
	secret, err := s.sealer.Open(tenant, id, sealed)
	return seal.Secret(secret), err
}

// Pend makes and stores the secret that a rotation will set, before anything
// downstream changes: a crash later cannot lose it. A pending secret that is
// there already is returned as it is, so the rotation can be repeated.
func (s *Store) Pend(ctx context.Context, tenant, id uuid.UUID) (seal.Secret, error) {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails, see crypto/rand
	sealed, err := s.sealer.Seal(tenant, id, []byte(base64.RawURLEncoding.EncodeToString(raw)))
	if err != nil {
		return "", err
	}
	err = s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			update inventory set pending_secret = coalesce(pending_secret, $3), updated_at = now()
			 where tenant_id = $1 and id = $2 returning pending_secret`, tenant, id, sealed).Scan(&sealed)
	})
	if err != nil {
		return "", fmt.Errorf("store the new secret of item %s: %w", id, err)
	}
	return s.unseal(tenant, id, sealed)
}

// Promote puts the pending secret in the place of the old one, which by then is
// dead downstream: in this row, and in those of the account's other holders.
func (s *Store) Promote(ctx context.Context, tenant, id uuid.UUID) error {
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		var connector, reference string
		var kind Kind
		var pending []byte
		err := tx.QueryRow(ctx, `
			select connector, kind, reference, pending_secret from inventory
			 where tenant_id = $1 and id = $2 and pending_secret is not null for update`, tenant, id).Scan(&connector, &kind, &reference, &pending)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // promoted before
		}
		if err != nil {
			return err
		}
		secret, err := s.unseal(tenant, id, pending)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			select id from inventory
			 where tenant_id = $1 and connector = $2 and kind = $3 and reference = $4 and (id = $5 or state in ('live', 'ending', 'survivor'))
			 order by id for update`, tenant, connector, kind, reference, id)
		if err != nil {
			return err
		}
		holders, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
		if err != nil {
			return err
		}
		for _, holder := range holders {
			sealed, err := s.sealer.Seal(tenant, holder, []byte(secret.Reveal()))
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `
				update inventory set secret = $3, pending_secret = null, updated_at = now() where tenant_id = $1 and id = $2`,
				tenant, holder, sealed); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("promote the new secret of item %s: %w", id, err)
	}
	return nil
}

// Settle opens a run of a cascade: survivors of an earlier run are live again,
// and the agents that ended with the principal are restricted, which their SCIM
// resource shows. A principal who is back by now orphans nobody. It returns the
// agents' ids.
func (s *Store) Settle(ctx context.Context, tenant uuid.UUID, scope Scope) ([]uuid.UUID, error) {
	agents, err := database.Once(ctx, s.db, tenant, func(rows pgx.Rows) ([]uuid.UUID, error) {
		return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	}, `
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
		select id from orphans`, tenant, scope.Principal, scope.Event)
	if err != nil {
		return nil, fmt.Errorf("settle the cascade: %w", err)
	}
	return agents, nil
}

func (s *Store) exec(ctx context.Context, tenant uuid.UUID, what, sql string, args ...any) error {
	if _, err := database.Once(ctx, s.db, tenant, database.Nothing, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
