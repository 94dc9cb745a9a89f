package credential

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/fault"
)

// ErrNotCorrectable is returned for a registration that is neither live nor a survivor, or
// that an open cascade will end. An operator can neither correct nor release it.
var ErrNotCorrectable = fault.New(fault.Conflict,
	"the credential is neither live nor a survivor, or a cascade is ending it: "+
		"wait until the cascade has closed, or cancel it")

// Correction holds the values that an operator changes in a registration.
type Correction struct {
	Reference string
	Secret    connectors.Secret // empty for none
}

// ReleaseByOperator releases an item that no open cascade will end, for example because its
// reference names nothing that can be ended. It records the act.
// Errors: [ErrNotFound], [ErrNotCorrectable].
func (s *Store) ReleaseByOperator(ctx context.Context, tenant, id uuid.UUID, reason string) (*Item, error) {
	var item *Item
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		before, released, err := s.releaseItem(ctx, tx, tenant, id, reason)
		if err != nil {
			return err
		}
		item = released
		return audit.Record(ctx, tx, tenant, audit.CredentialRelease, id.String(), before, map[string]any{"reason": reason})
	})
	if err != nil {
		return nil, fmt.Errorf("release %s: %w", id, err)
	}
	return item, nil
}

// Correct replaces a registration by one with another reference and secret, and the same
// holders. A survivor remains a survivor of its cascade, so that a re-run ends it. Correct
// records the act.
// Errors: [ErrNotFound], [ErrNotCorrectable], [ErrDuplicate], [ErrAccountEnding].
func (s *Store) Correct(ctx context.Context, tenant, id uuid.UUID, c Correction, reason string) (*Item, error) {
	var corrected *Item
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		old, _, err := s.releaseItem(ctx, tx, tenant, id, reason)
		if err != nil {
			return err
		}
		n := New{
			Principal: old.Principal, Agent: old.Agent, Kind: old.Kind, Connector: old.Connector,
			Reference: c.Reference, Secret: c.Secret,
			Shared: old.Shared, ReliedOnBy: old.ReliedOnBy, Entitlement: old.Entitlement, Scopes: old.Scopes,
			IssuedAt: old.IssuedAt, ExpiresAt: old.ExpiresAt, Mints: old.Mints,
		}
		if err := lockAccounts(ctx, tx, tenant, n); err != nil {
			return err
		}
		if corrected, err = s.insert(ctx, tx, tenant, n); err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `
			update credentials i set state = o.state, reason = $4, event_id = o.event_id, sequence = o.sequence,
			       updated_at = now()
			  from (select $3::text state, $5::uuid event_id, (select sequence from credentials where tenant_id = $1
			    and id = $6) sequence) o
			 where i.tenant_id = $1 and i.id = $2 returning i.state, i.reason, i.event_id`,
			tenant, corrected.ID, old.State, "corrected: "+reason, old.Event, id).Scan(&corrected.State,
			&corrected.Reason, &corrected.Event)
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, tenant, audit.CredentialCorrect, id.String(), old,
			map[string]any{"reason": reason, "item": corrected})
	})
	if err != nil {
		return nil, fmt.Errorf("correct %s: %w", id, err)
	}
	return corrected, nil
}

func (s *Store) lockCorrectable(ctx context.Context, tx pgx.Tx, tenant, id uuid.UUID) (*Item, error) {
	if err := audit.Attribute(ctx, tx); err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `select `+Columns+` from credentials where tenant_id = $1 and id = $2 for update`,
		tenant, id)
	if err != nil {
		return nil, err
	}
	item, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByPos[Item])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	pending, err := leaverPending(ctx, tx, tenant, id)
	if err != nil {
		return nil, err
	}
	if pending || (item.State != Live && item.State != Failed) {
		return nil, ErrNotCorrectable
	}
	return item, nil
}

// releaseItem releases an item, and returns it before and after the release.
func (s *Store) releaseItem(ctx context.Context, tx pgx.Tx, tenant, id uuid.UUID,
	reason string,
) (before, after *Item, err error) {
	before, err = s.lockCorrectable(ctx, tx, tenant, id)
	if err != nil {
		return nil, nil, err
	}
	rows, err := tx.Query(ctx, `
		update credentials set state = 'released', reason = $3, secret = null, updated_at = now() where tenant_id = $1
		  and id = $2
		returning `+Columns, tenant, id, "released by an operator: "+reason)
	if err != nil {
		return nil, nil, err
	}
	after, err = pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByPos[Item])
	return before, after, err
}
