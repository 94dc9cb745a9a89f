package inventory

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Lapse ends what time has ended: waivers, after which an item is live again, and
// survivors that have expired by themselves. It returns how many of each.
func (s *Store) Lapse(ctx context.Context, tenant uuid.UUID) (waivers, survivors int, err error) {
	_, err = database.Once(ctx, s.db, tenant, func(rows pgx.Rows) (struct{}, error) {
		return pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
			return struct{}{}, row.Scan(&waivers, &survivors)
		})
	}, `
		with lapsed as (
		  update inventory set state = 'live', reason = 'its waiver has ended', waived_until = null, updated_at = now()
		   where tenant_id = $1 and state = 'waived' and waived_until < now() returning 1),
		expired as (
		  update inventory set state = 'expiring', reason = 'it has expired by itself', updated_at = now()
		   where tenant_id = $1 and state = 'survivor' and expires_at < now() returning 1)
		select (select count(*) from lapsed), (select count(*) from expired)`, tenant)
	if err != nil {
		return 0, 0, fmt.Errorf("end what time has ended: %w", err)
	}
	return waivers, survivors, nil
}

// Overlooked returns restricted principals who hold something live that no cascade
// is about to end. Survivors are not among it: they wait for somebody to act.
func (s *Store) Overlooked(ctx context.Context, tenant uuid.UUID, limit int) ([]uuid.UUID, error) {
	found, err := database.Once(ctx, s.db, tenant, ids, `
		select x.principal_id from restrictions x
		 where x.tenant_id = $1
		   and exists (select 1 from inventory i where i.tenant_id = $1 and (i.principal_id = x.principal_id or i.agent_id = x.principal_id)
		                  and i.state in ('live', 'ending'))
		   and not exists (select 1 from lifecycle_events e
		        where e.tenant_id = $1 and e.kind = 'leaver' and e.closed_at is null
		          and (e.principal_id = x.principal_id or e.id = x.event_id))
		 order by x.principal_id limit $2`, tenant, limit)
	if err != nil {
		return nil, fmt.Errorf("look for what was overlooked: %w", err)
	}
	return found, nil
}

// Gone returns principals who were restricted within so long, after one in the
// order of ids, for connectors to be asked about.
func (s *Store) Gone(ctx context.Context, tenant, after uuid.UUID, within time.Duration, limit int) ([]uuid.UUID, error) {
	found, err := database.Once(ctx, s.db, tenant, ids, `
		select principal_id from restrictions where tenant_id = $1 and principal_id > $2 and since > now() - $4::interval
		 order by principal_id limit $3`, tenant, after, limit, within)
	if err != nil {
		return nil, fmt.Errorf("list who is restricted: %w", err)
	}
	return found, nil
}
