package credential

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/mapping"
)

// leaverPending reports whether a cascade that will end the item has not closed yet. It does
// so even if the principal has returned.
func leaverPending(ctx context.Context, tx pgx.Tx, tenant, item uuid.UUID) (bool, error) {
	var pending bool
	err := tx.QueryRow(ctx, `
		with recursive item as (select * from credentials where tenant_id = $1 and id = $2),
		-- The holders, their owners, directly or through groups, and their parents.
		above (id) as (
		  select unnest(array[principal_id, agent_id]) from item
		  union
		  select e.target_id from above a join edges e on e.tenant_id = $1 and e.source_id = a.id
		    and e.attribute in ('owners', 'members', 'parent'))
		select exists (
		  select 1 from item i join lifecycle_events e on e.tenant_id = $1 and e.kind = 'leaver' and e.closed_at is null
		   where not of_later_life($1, e.sequence, i.sequence, array[i.principal_id, i.agent_id, e.principal_id])
		     and e.principal_id in (select id from above))`, tenant, item).Scan(&pending)
	return pending, err
}

// entitlementLost reports whether an item was granted under an entitlement that its principal does
// not have, or may not have after a change that is not evaluated yet: a mover's cascade ends it. The
// lock makes an evaluation wait.
func entitlementLost(ctx context.Context, tx pgx.Tx, tenant, principal uuid.UUID, entitlement string) (bool, error) {
	if !mapping.IsEntitlement(entitlement) {
		return false, nil
	}
	if _, err := tx.Exec(ctx, `select 1 from evaluations where tenant_id = $1 and principal_id = $2 for share`,
		tenant, principal); err != nil {
		return false, err
	}
	var lost bool
	err := tx.QueryRow(ctx, `
		select exists (select 1 from mappings where tenant_id = $1) and (entitlements_stale($1, $2) or not exists (
		  select 1 from entitlements where tenant_id = $1 and principal_id = $2 and name = $3))`,
		tenant, principal, entitlement).Scan(&lost)
	return lost, err
}

// Release marks an item as given up by its holder. An item that a cascade is ending or will
// end, or that a restricted principal holds, cannot be released. Releasing twice is not an error.
// Errors: [ErrNotFound], [ErrEnding].
func (s *Store) Release(ctx context.Context, tenant, id uuid.UUID, kinds []connectors.Kind) error {
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		if err := audit.Attribute(ctx, tx); err != nil {
			return err
		}
		var principal uuid.UUID
		var agent *uuid.UUID
		var entitlement string
		err := tx.QueryRow(ctx, `select principal_id, agent_id, entitlement from credentials where tenant_id = $1
			and id = $2 and kind = any ($3)`,
			tenant, id, kinds).Scan(&principal, &agent, &entitlement)
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		holders := holdersOf(principal, agent)
		if pending, err := leaverPending(ctx, tx, tenant, id); err != nil {
			return err
		} else if pending {
			return ErrEnding
		}
		if err := newAdmission(tx, tenant, nil).all(ctx, holders); errors.Is(err, ErrRestricted) ||
			errors.Is(err, ErrUnknownPrincipal) {
			return ErrEnding
		} else if err != nil {
			return err
		}
		if lost, err := entitlementLost(ctx, tx, tenant, principal, entitlement); err != nil {
			return err
		} else if lost {
			return ErrEnding
		}
		var state State
		if err := tx.QueryRow(ctx, `select state from credentials where tenant_id = $1 and id = $2 for update`,
			tenant, id).Scan(&state); err != nil {
			return err
		}
		switch state {
		case Ending, Failed:
			return ErrEnding
		case Live:
			// Erase the secret, since it is no longer needed.
			_, err = tx.Exec(ctx, `update credentials set state = 'released', secret = null, updated_at = now()
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
