package credential

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// expired selects the items that are to be probed since their registered expiry has passed:
// survivors and expiring items. Service accounts are excluded, since they may be alive with
// another secret than the one that a probe tries.
const expired = `tenant_id = $1 and state in ('failed', 'expiring') and expires_at < now()
	and expiry_probed_at is null
		   and kind <> 'service_account'`

// ExpiredAt returns the connectors with items whose registered expiry has passed.
func (s *Store) ExpiredAt(ctx context.Context, tenant uuid.UUID) ([]string, error) {
	names, err := database.Rows(ctx, s.db, tenant, pgx.RowTo[string], `
		select distinct connector from credentials where `+expired+` order by 1`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list connectors with expired credentials: %w", err)
	}
	return names, nil
}

// Expired returns a page of a connector's items that may have expired, in the order of IDs,
// starting after the ID after.
func (s *Store) Expired(ctx context.Context, tenant uuid.UUID, connector string, after uuid.UUID,
	limit int,
) ([]uuid.UUID, error) {
	found, err := database.Rows(ctx, s.db, tenant, pgx.RowTo[uuid.UUID], `
		select id from credentials where `+expired+` and connector = $2 and id > $3
		 order by id limit $4`, tenant, connector, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list expired credentials of connector %s: %w", connector, err)
	}
	return found, nil
}

// Expire stores the state and the reason of an item that was probed after its expiry. If the
// probe found it dead, it is not probed again, and its secret is erased.
func (s *Store) Expire(ctx context.Context, tenant, id uuid.UUID, state State, reason string) error {
	return s.exec(ctx, tenant, "conclude expired credential "+id.String(), `
		update credentials i set state = $3, reason = $4, updated_at = now(),
		       expiry_probed_at = case when $3 = 'expiring' then now() end,
		       secret = case when $3 = 'expiring' then null else secret end
		 where tenant_id = $1 and id = $2 and state in ('failed', 'expiring')
		   -- If the holder has registered the reference again, the probe sees that registration.
		   and ($3 = 'expiring' or not exists (select 1 from credentials o
		        where o.tenant_id = $1 and o.id <> i.id and o.connector = i.connector and o.kind = i.kind
		          and o.reference = i.reference
		          and o.principal_id = i.principal_id and o.state in ('live', 'ending', 'failed', 'waived')))`,
		tenant, id, state, reason)
}
