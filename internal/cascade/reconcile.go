package cascade

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Lapse ends expired waivers, so that their items are live again, and returns their number.
// Survivors of a cancelled cascade become live too if their holders are active again.
func (c *Store) Lapse(ctx context.Context, tenant uuid.UUID) (waivers int, err error) {
	waivers, err = database.Row(ctx, c.db, tenant, pgx.RowTo[int], `
		with back as ( -- survivors of a cancelled cascade whose holders are active again
		  update credentials i set state = 'live',
		    reason = 'its cascade was cancelled, and its holders are active again', updated_at = now()
		   where i.tenant_id = $1 and i.state = 'failed'
		     and exists (select 1 from lifecycle_events e where e.tenant_id = $1 and e.id = i.event_id
		       and e.outcome = 'cancelled')
		     and not exists (select 1 from restrictions x where x.tenant_id = $1
		       and x.principal_id in (i.principal_id, i.agent_id))),
		lapsed as (
		  update credentials set state = 'live', reason = 'its waiver has ended', waived_until = null, updated_at = now()
		   where tenant_id = $1 and state = 'waived' and waived_until < now() returning 1)
		select count(*) from lapsed`, tenant)
	if err != nil {
		return 0, fmt.Errorf("end waivers: %w", err)
	}
	return waivers, nil
}

// Overlooked returns restricted principals with live items that no open cascade will end.
// Survivors do not count: an operator must handle them.
func (c *Store) Overlooked(ctx context.Context, tenant uuid.UUID, limit int) ([]uuid.UUID, error) {
	found, err := database.Rows(ctx, c.db, tenant, pgx.RowTo[uuid.UUID], `
		select x.principal_id from restrictions x
		 where x.tenant_id = $1
		   and exists (select 1 from credentials i where i.tenant_id = $1 and (i.principal_id = x.principal_id
		     or i.agent_id = x.principal_id)
		                  and i.state in ('live', 'ending'))
		   and not exists (select 1 from lifecycle_events e
		        where e.tenant_id = $1 and e.kind = 'leaver' and e.closed_at is null
		          and (e.principal_id = x.principal_id or e.id = x.event_id))
		 order by x.principal_id limit $2`, tenant, limit)
	if err != nil {
		return nil, fmt.Errorf("list overlooked principals: %w", err)
	}
	return found, nil
}

// Restricted reports whether a principal is restricted, so that decisions deny it.
func (c *Store) Restricted(ctx context.Context, tenant, principal uuid.UUID) (bool, error) {
	restricted, err := database.Row(ctx, c.db, tenant, pgx.RowTo[bool], `
		select exists (select 1 from restrictions where tenant_id = $1 and principal_id = $2)`, tenant, principal)
	if err != nil {
		return false, fmt.Errorf("look up the restriction of %s: %w", principal, err)
	}
	return restricted, nil
}

// Gone returns a page of the principals that were restricted within the duration, in the
// order of IDs, starting after the ID after. Connectors are then asked for their credentials.
func (c *Store) Gone(
	ctx context.Context, tenant, after uuid.UUID, within time.Duration, limit int,
) ([]uuid.UUID, error) {
	found, err := database.Rows(ctx, c.db, tenant, pgx.RowTo[uuid.UUID], `
		select principal_id from restrictions where tenant_id = $1 and principal_id > $2 and since > now() - $4::interval
		 order by principal_id limit $3`, tenant, after, limit, within)
	if err != nil {
		return nil, fmt.Errorf("list restricted principals: %w", err)
	}
	return found, nil
}
