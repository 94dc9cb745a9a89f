package access

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

// Standing is whether a principal may act at all, and what it is entitled to: what a
// gateway may keep, as long as its version is the same.
type Standing struct {
	ID       uuid.UUID `json:"id"`
	Type     string    `json:"type"`
	Standing string    `json:"standing"` // active or restricted
	// Reason is why it is restricted: agent_suspended, agent_expired, owner_gone or
	// principal_restricted.
	Reason       Reason     `json:"reason,omitempty"`
	Since        *time.Time `json:"since,omitempty"`
	ValidUntil   *time.Time `json:"validUntil,omitempty"`
	Entitlements []string   `json:"entitlements"`
}

// Standing returns how a principal stands, the deleted too. Error: directory.ErrNotFound.
func (s *Store) Standing(ctx context.Context, tenant, principal uuid.UUID) (*Standing, error) {
	var doubted bool
	standing, err := database.Once(ctx, s.db, tenant, func(rows pgx.Rows) (*Standing, error) {
		return pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (*Standing, error) {
			var st Standing
			return &st, row.Scan(&st.ID, &st.Type, &st.Standing, &st.Reason, &st.Since, &st.ValidUntil, &st.Entitlements, &doubted)
		})
	}, `
		with facts as (
		  select r.id, r.type, x.since, v.valid_until,
		         case when x.principal_id is not null or r.deleted_at is not null then case r.type when 'Agent' then 'agent_suspended' else 'principal_restricted' end
		              when v.valid_until <= now() then 'agent_expired'
		              when r.type = 'Agent' and not has_active_owner($1, r.id, null) then 'owner_gone'
		              else '' end reason
		    from resources r
		    left join restrictions x on x.tenant_id = $1 and x.principal_id = r.id
		    left join validities v on v.tenant_id = $1 and v.principal_id = r.id
		   where r.tenant_id = $1 and r.id = $2 and r.type in ('User', 'Agent'))
		select id, type, case when reason = '' then 'active' else 'restricted' end, reason, since, valid_until,
		       array(select name from entitlements e where e.tenant_id = $1 and e.principal_id = $2 and reason = '' order by name),
		       reason = '' and entitlements_in_doubt($1, $2)
		  from facts`, tenant, principal)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, directory.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("look how %s stands: %w", principal, err)
	}
	if doubted {
		if standing.Entitlements, err = s.entitlements.Live(ctx, tenant, principal); err != nil {
			return nil, fmt.Errorf("look how %s stands: %w", principal, err)
		}
		slices.Sort(standing.Entitlements)
	}
	return standing, nil
}
