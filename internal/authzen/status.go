package authzen

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// Status is the access status of a principal: whether it may act at all, and its entitlements.
// Gateways may cache it and revalidate it by its ETag.
type Status struct {
	ID     uuid.UUID `json:"id"`
	Type   string    `json:"type"`
	Status string    `json:"status"` // active or restricted
	// Reason is why it is restricted: agent_suspended, agent_expired, owner_gone or
	// principal_restricted.
	Reason       Reason     `json:"reason,omitempty"`
	Since        *time.Time `json:"since,omitempty"`
	ValidUntil   *time.Time `json:"validUntil,omitempty"`
	Entitlements []string   `json:"entitlements"`
}

// Status returns the access status of a principal, which may be deleted. Error: directory.ErrNotFound.
func (s *Store) Status(ctx context.Context, tenant, principal uuid.UUID) (*Status, error) {
	var outdated bool
	status, err := database.Row(ctx, s.db, tenant, func(row pgx.CollectableRow) (*Status, error) {
		var st Status
		var p Party
		err := row.Scan(&st.ID, &st.Type, &p.Restricted, &p.Expired, &p.Owned,
			&st.Since, &st.ValidUntil, &st.Entitlements, &outdated)
		p.Type, st.Status = st.Type, "active"
		if st.Reason = p.Refusal(); st.Reason != "" {
			st.Status, st.Entitlements, outdated = "restricted", []string{}, false
		}
		return &st, err
	}, `
		select r.id, r.type, x.principal_id is not null or r.deleted_at is not null, coalesce(r.valid_until <= now(), false),
		       r.type <> 'Agent' or active_owner($1, r.id, null) is not null,
		       x.since, case when r.deleted_at is null then r.valid_until end,
		       array(select name from entitlements e where e.tenant_id = $1 and e.principal_id = $2 order by name),
		       entitlements_stale($1, $2)
		  from resources r
		  left join restrictions x on x.tenant_id = $1 and x.principal_id = r.id
		 where r.tenant_id = $1 and r.id = $2 and r.type in ('User', 'Agent')`, tenant, principal)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, directory.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read the access status of %s: %w", principal, err)
	}
	if outdated {
		if status.Entitlements, err = s.entitlements.Live(ctx, tenant, principal); err != nil {
			return nil, fmt.Errorf("evaluate the entitlements of %s: %w", principal, err)
		}
		slices.Sort(status.Entitlements)
	}
	return status, nil
}
