package inventory

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/seal"
)

// New is what a platform registers.
type New struct {
	Principal uuid.UUID
	Agent     *uuid.UUID
	Kind      Kind
	Connector string
	Reference string
	Secret    seal.Secret // sealed before it is stored; empty where the connector needs none
	Shared    bool        // others rely on it: rotated instead of disabled
	Scopes    []string
	IssuedAt  time.Time
	ExpiresAt *time.Time
}

// Register adds an item, unless the principal or the agent may hold nothing
// new (I2). The check holds locks that a deactivation needs: of the two, one
// commits first, and the other sees it.
// Errors: [ErrUnknownPrincipal], [ErrRestricted], [ErrDuplicate].
func (s *Store) Register(ctx context.Context, tenant uuid.UUID, n New) (*Item, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
	}
	var sealed []byte
	if n.Secret != "" {
		if sealed, err = s.sealer.Seal(tenant, id, []byte(n.Secret.Reveal())); err != nil {
			return nil, err
		}
	}
	if n.Scopes == nil {
		n.Scopes = []string{}
	}
	var item *Item
	err = s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		holders := []uuid.UUID{n.Principal}
		if n.Agent != nil && *n.Agent != n.Principal {
			holders = append(holders, *n.Agent)
		}
		if err := admit(ctx, tx, tenant, holders); err != nil {
			return err
		}
		if err := requireAgent(ctx, tx, tenant, n.Agent); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			insert into inventory (tenant_id, id, principal_id, agent_id, kind, connector, reference, secret, shared, scopes, issued_at, expires_at)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
			returning `+itemColumns,
			tenant, id, n.Principal, n.Agent, n.Kind, n.Connector, n.Reference, sealed, n.Shared, n.Scopes, n.IssuedAt, n.ExpiresAt)
		if err != nil {
			return err
		}
		item, err = pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByPos[Item])
		return err
	})
	switch {
	case database.IsUniqueViolation(err, "inventory_live"):
		return nil, ErrDuplicate
	case err != nil:
		return nil, fmt.Errorf("register: %w", err)
	}
	return item, nil
}

// requireAgent refuses a holder that is no agent.
func requireAgent(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, agent *uuid.UUID) error {
	if agent == nil {
		return nil
	}
	var isAgent bool
	err := tx.QueryRow(ctx, `select type = 'Agent' from resources where tenant_id = $1 and id = $2`, tenant, *agent).Scan(&isAgent)
	if err == nil && !isAgent {
		return fmt.Errorf("%w: %s is no agent", ErrUnknownPrincipal, *agent)
	}
	return err
}

// admit lets the holders pass if each is a live principal, none is restricted,
// and each agent has an active owner; and keeps all of that true until the
// transaction ends.
func admit(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, holders []uuid.UUID) error {
	// One order for all, lest two registrations deadlock.
	slices.SortFunc(holders, func(a, b uuid.UUID) int { return strings.Compare(a.String(), b.String()) })
	for _, holder := range holders {
		var resourceType string
		err := tx.QueryRow(ctx, `
			select type from resources where tenant_id = $1 and id = $2 and deleted_at is null and type in ('User', 'Agent')
			   for share`, tenant, holder).Scan(&resourceType)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("%w: %s", ErrUnknownPrincipal, holder)
		}
		if err != nil {
			return err
		}
		// Asked after the lock is held, in a statement of its own: a
		// deactivation that held it before is visible now.
		restricted, err := isRestricted(ctx, tx, tenant, holder)
		if err != nil {
			return err
		}
		if restricted {
			return fmt.Errorf("%w: %s", ErrRestricted, holder)
		}
		if resourceType == directory.TypeAgent {
			if err := lockActiveOwner(ctx, tx, tenant, holder); err != nil {
				return err
			}
		}
	}
	return nil
}

// lockActiveOwner finds an owner of the agent who is here, and keeps that
// owner from leaving until the transaction ends. While it waits for the lock
// the owner may have left: it then looks for another.
func lockActiveOwner(ctx context.Context, tx pgx.Tx, tenant, agent uuid.UUID) error {
	for {
		var owner uuid.UUID
		err := tx.QueryRow(ctx, `
			select p.id from edges o
			  join resources r on r.tenant_id = o.tenant_id and r.id = o.target_id and r.deleted_at is null
			  left join edges m on r.type = 'Group' and m.tenant_id = r.tenant_id and m.source_id = r.id and m.attribute = 'members'
			  join resources p on p.tenant_id = o.tenant_id and p.id = coalesce(m.target_id, r.id)
			                  and p.type = 'User' and p.deleted_at is null
			 where o.tenant_id = $1 and o.source_id = $2 and o.attribute = 'owners'
			   and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = p.id)
			 limit 1 for share of p`, tenant, agent).Scan(&owner)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("%w: agent %s has no active owner", ErrRestricted, agent)
		}
		if err != nil {
			return err
		}
		restricted, err := isRestricted(ctx, tx, tenant, owner)
		if err != nil || !restricted {
			return err
		}
	}
}

func isRestricted(ctx context.Context, tx pgx.Tx, tenant, principal uuid.UUID) (bool, error) {
	var restricted bool
	err := tx.QueryRow(ctx, `select exists (select 1 from restrictions where tenant_id = $1 and principal_id = $2)`, tenant, principal).
		Scan(&restricted)
	return restricted, err
}

// leaverPending tells whether a cascade that is to end the item has not closed
// yet: the principal may be back by now, and the item is its all the same.
func leaverPending(ctx context.Context, tx pgx.Tx, tenant, item uuid.UUID) (bool, error) {
	var pending bool
	err := tx.QueryRow(ctx, `
		select exists (
		  select 1 from inventory i join lifecycle_events e on e.tenant_id = i.tenant_id and e.kind = 'leaver'
		     and e.closed_at is null and e.sequence >= i.sequence
		   where i.tenant_id = $1 and i.id = $2
		     and (e.principal_id in (i.principal_id, i.agent_id) or exists (
		          select 1 from edges o where o.tenant_id = $1 and o.source_id in (i.principal_id, i.agent_id)
		             and o.attribute = 'owners' and o.target_id = e.principal_id)))`, tenant, item).Scan(&pending)
	return pending, err
}

// Release takes an item out of the inventory because its holder gave it up.
// What a cascade has begun with, and what a restricted principal holds, stays:
// nobody talks an item out of a cascade. Releasing twice is no error.
// Errors: [ErrNotFound], [ErrEnding].
func (s *Store) Release(ctx context.Context, tenant, id uuid.UUID, kinds []Kind) error {
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		var principal uuid.UUID
		var agent *uuid.UUID
		err := tx.QueryRow(ctx, `select principal_id, agent_id from inventory where tenant_id = $1 and id = $2 and kind = any ($3)`,
			tenant, id, kinds).Scan(&principal, &agent)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		holders := []uuid.UUID{principal}
		if agent != nil && *agent != principal {
			holders = append(holders, *agent)
		}
		if pending, err := leaverPending(ctx, tx, tenant, id); err != nil {
			return err
		} else if pending {
			return ErrEnding
		}
		if err := admit(ctx, tx, tenant, holders); errors.Is(err, ErrRestricted) || errors.Is(err, ErrUnknownPrincipal) {
			return ErrEnding
		} else if err != nil {
			return err
		}
		var state State
		if err := tx.QueryRow(ctx, `select state from inventory where tenant_id = $1 and id = $2 for update`, tenant, id).Scan(&state); err != nil {
			return err
		}
		switch state {
		case Ending, Survivor:
			return ErrEnding
		case Live:
			// The secret is of no more use here: what is not kept cannot leak.
			_, err = tx.Exec(ctx, `update inventory set state = 'released', secret = null, updated_at = now()
				where tenant_id = $1 and id = $2`, tenant, id)
			return err
		default:
			return nil
		}
	})
	if err != nil {
		return fmt.Errorf("release %s: %w", id, err)
	}
	return nil
}
