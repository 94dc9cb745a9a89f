package cascade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// WorkflowStatus is the status of an event's workflow in Temporal.
type WorkflowStatus string

// The statuses.
const (
	WorkflowRunning WorkflowStatus = "running"
	WorkflowStopped WorkflowStatus = "stopped" // terminated or cancelled by an operator
	WorkflowGone    WorkflowStatus = "gone"    // closed otherwise, or unknown
	WorkflowForeign WorkflowStatus = "foreign" // another client's run under the cascade's ID
)

// Pending is an activity that a workflow waits for.
type Pending struct {
	ID       string     // of the activity; ends in the item's ID if it handles one item
	Attempts int        // number of attempts begun
	Answer   string     // the last failure; empty before the first
	NextTry  *time.Time // nil while an attempt is in progress
	Deadline *time.Time
}

// keepSQL sets the state of the items that a cancelled cascade has not ended: live if their
// principal and agent are active again, survivor otherwise. It deletes the leases of the
// cascade's attempts, and stores the counts in the event.
const keepSQL = `
	with closed as (select id, kind, principal_id from lifecycle_events where tenant_id = $1 and id = $2),
	kept as (
	  update credentials i
	     set state = case when back.yes then 'live' else 'failed' end, event_id = c.id,
	         reason = case when back.yes then '' else 'not ended: ' end || 'its cascade was cancelled: ' || $3,
	         updated_at = now()
	    from closed c, credentials o, lateral (
	      select not exists (select 1 from restrictions x where x.tenant_id = $1
	        and x.principal_id in (o.principal_id, o.agent_id)) as yes) back
	   where i.tenant_id = $1 and o.tenant_id = $1 and o.id = i.id
	     and ((i.event_id = c.id and (i.state = 'ending' or (i.state = 'failed' and back.yes)))
	       -- Items that it had not reached become survivors too, or the reconciler would end them.
	       or (c.kind = 'leaver' and i.state = 'live' and not back.yes and (c.principal_id in (i.principal_id, i.agent_id)
	         or exists (select 1 from restrictions x where x.tenant_id = $1 and x.event_id = c.id
	           and x.principal_id in (i.principal_id, i.agent_id))))) returning i.state),
	fenced as (delete from account_leases l using closed c where l.tenant_id = $1 and l.event_id = c.id),
	counted as (
	  select count(*) filter (where state = 'verified') verified, count(*) filter (where state = 'revoked') revoked,
	         count(*) filter (where state = 'absent') absent, count(*) filter (where state = 'expiring') expiring,
	         count(*) filter (where state = 'waived') waived
	    from credentials where tenant_id = $1 and event_id = $2)
	update lifecycle_events e
	   set survivors = (select count(*) from kept where state = 'failed'), verified = c.verified,
	     revoked = c.revoked, absent = c.absent, expiring = c.expiring, waived = c.waived
	  from counted c where e.tenant_id = $1 and e.id = $2`

// Cancel closes a running cascade as cancelled, whatever the state of its workflow, and
// records the actor and the reason. Errors: [ErrCascadeNotFound], [ErrNotRunning].
func (c *Store) Cancel(ctx context.Context, tenant, id uuid.UUID, actor, reason string) (*Cascade, error) {
	err := c.end(ctx, tenant, func(e *ended) database.Statement {
		return database.Statement{SQL: `
			update lifecycle_events e set closed_at = now(), started_at = coalesce(e.started_at, now()), outcome = 'cancelled'
			 where e.tenant_id = $1 and e.id = $2 and ` + isCascade + ` and e.closed_at is null
			returning true, ` + endedColumns, Args: []any{tenant, id}, Collect: database.Fields(e.fields()...)}
	}, func(*ended) []database.Statement {
		return []database.Statement{
			{SQL: keepSQL, Args: []any{tenant, id, reason}},
			{SQL: recordSQL, Args: []any{tenant, id, actor, "cancel", reason}},
		}
	})
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err := c.Get(ctx, tenant, id); err != nil {
			return nil, fmt.Errorf("cancel cascade %s: %w", id, err)
		}
		err = ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("cancel cascade %s: %w", id, err)
	}
	return c.Get(ctx, tenant, id)
}
