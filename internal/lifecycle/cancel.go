package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// WorkflowStatus is what Temporal knows of an event's workflow.
type WorkflowStatus string

// The statuses.
const (
	WorkflowRunning WorkflowStatus = "running"
	WorkflowStopped WorkflowStatus = "stopped" // terminated or cancelled, by a person
	WorkflowGone    WorkflowStatus = "gone"    // closed otherwise, or unknown
)

// cancelSQL closes an open event as cancelled. Items that the cascade has not ended become
// live if their principal and agent are active again, and survivors otherwise. The leases of
// the cascade's attempts are deleted.
const cancelSQL = `
	with closed as (
	  update lifecycle_events set closed_at = now(), started_at = coalesce(started_at, now()), outcome = 'cancelled'
	   where tenant_id = $1 and id = $2 and closed_at is null returning id, kind, principal_id),
	kept as (
	  update inventory i
	     set state = case when back.yes then 'live' else 'survivor' end, event_id = c.id,
	         reason = case when back.yes then 'its cascade was cancelled: ' || $3 else 'not ended: its cascade was cancelled: ' || $3 end, updated_at = now()
	    from closed c, inventory o, lateral (
	      select not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id in (o.principal_id, o.agent_id)) as yes) back
	   where i.tenant_id = $1 and o.tenant_id = $1 and o.id = i.id
	     and ((i.event_id = c.id and (i.state = 'ending' or (i.state = 'survivor' and back.yes)))
	       -- What it had not come to yet survives as well, or the reconciler would end it.
	       or (c.kind = 'leaver' and i.state = 'live' and not back.yes and (c.principal_id in (i.principal_id, i.agent_id)
	         or exists (select 1 from restrictions x where x.tenant_id = $1 and x.event_id = c.id and x.principal_id in (i.principal_id, i.agent_id))))) returning i.state),
	fenced as (delete from account_leases l using closed c where l.tenant_id = $1 and l.event_id = c.id),
	counted as (
	  select count(*) filter (where state = 'verified') verified, count(*) filter (where state = 'revoked') revoked,
	         count(*) filter (where state = 'expiring') expiring, count(*) filter (where state = 'waived') waived
	    from inventory where tenant_id = $1 and event_id = $2)
	select exists (select 1 from closed), (select count(*) from kept where state = 'survivor'), verified, revoked, expiring, waived from counted`

// Cancel closes a running cascade as cancelled, whatever its workflow is at, and records
// who did so and why. Errors: [ErrCascadeNotFound], [ErrNotRunning].
func (c *Cascades) Cancel(ctx context.Context, tenant, id uuid.UUID, actor, reason string) (*Cascade, error) {
	err := c.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		var known bool
		if err := tx.QueryRow(ctx, `select true from lifecycle_events where tenant_id = $1 and id = $2 and `+isCascade+` for update`, tenant, id).
			Scan(&known); errors.Is(err, pgx.ErrNoRows) {
			return ErrCascadeNotFound
		} else if err != nil {
			return err
		}
		var closed bool
		var survivors, verified, revoked, expiring, waived int
		if err := tx.QueryRow(ctx, cancelSQL, tenant, id, reason).Scan(&closed, &survivors, &verified, &revoked, &expiring, &waived); err != nil {
			return err
		}
		if !closed {
			return ErrNotRunning
		}
		if _, err := tx.Exec(ctx, `update lifecycle_events set survivors = $3, verified = $4, revoked = $5, expiring = $6, waived = $7 where tenant_id = $1 and id = $2`,
			tenant, id, survivors, verified, revoked, expiring, waived); err != nil {
			return err
		}
		return record(ctx, tx, tenant, id, actor, "cancel", reason)
	})
	if err != nil {
		return nil, fmt.Errorf("cancel cascade %s: %w", id, err)
	}
	return c.Get(ctx, tenant, id)
}
