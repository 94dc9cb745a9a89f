package cascade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
)

// Hold is a mass deactivation that exceeded a tenant's deactivation threshold. Until it is approved,
// the tenant's cascades block access but take no irreversible step.
type Hold struct {
	ID      uuid.UUID `json:"id"`
	Leavers int       `json:"leavers"` // in the window, when the threshold was exceeded
	HeldAt  time.Time `json:"heldAt"`
	// HeldCascades are the open cascades that an approval releases: those that are held, and
	// those that no worker has taken up yet.
	HeldCascades int        `json:"heldCascades"`
	ApprovedAt   *time.Time `json:"approvedAt,omitempty"`
	ApprovedBy   *string    `json:"approvedBy,omitempty"`
	Reason       *string    `json:"reason,omitempty"`
}

// ErrNotHeld is returned if no cascades of the tenant are held.
var ErrNotHeld = fault.New(fault.Conflict, "no cascades of the tenant are held for approval")

// ErrMoreHeld is returned if more cascades are held than an approval names.
var ErrMoreHeld = fault.New(fault.Conflict,
	"more cascades are held than the approval names: see `leaver hold list`, and approve the new number")

// fewestForShare is the minimum number of leavers for a share to apply, for the sake of small tenants.
const fewestForShare = 5

// mostCounted limits how many leavers are counted.
const mostCounted = 10_000

// Threshold stores the mass deactivations that are held, and their approvals.
type Threshold struct {
	db *database.DB
}

// NewThreshold returns the store of holds on db.
func NewThreshold(db *database.DB) *Threshold { return &Threshold{db} }

// Check reports whether a cascade is held. It creates a hold if the leavers in the window
// exceed the threshold's number, or its share of the users that are active or left in the window. A
// cascade that was held stays held until its hold is approved.
func (b *Threshold) Check(ctx context.Context, tenant, event uuid.UUID) (held bool, err error) {
	// The fast path, for tenants without a threshold and without a hold.
	idle, err := database.Row(ctx, b.db, tenant, pgx.RowTo[bool], `
		select p.threshold_leavers is null and p.threshold_share is null
		   and not exists (select 1 from holds where tenant_id = $1 and approved_at is null)
		   and not exists (select 1 from lifecycle_events where tenant_id = $1 and id = $2 and hold_id is not null)
		  from tenants p where p.id = $1`, tenant, event)
	if err != nil {
		return false, fmt.Errorf("check the deactivation threshold: %w", err)
	}
	if idle {
		return false, nil
	}
	held, err = database.Row(ctx, b.db, tenant, pgx.RowTo[bool], `
		with policy as (
		  select threshold_leavers, threshold_share, threshold_window from tenants where id = $1),
		event as (select created_at, hold_id from lifecycle_events where tenant_id = $1 and id = $2),
		already as (select id from holds where tenant_id = $1 and approved_at is null),
		-- The window ends at the event, which a backlog may delay. Leavers before the last approval are
		-- not counted again.
		since as (
		  select greatest(e.created_at - make_interval(secs => p.threshold_window),
		                  (select max(approved_at) from holds where tenant_id = $1)) at
		    from policy p, event e),
		-- Only the newest leavers are counted, and none without a threshold.
		leaving as (
		  select case when p.threshold_leavers is null and p.threshold_share is null then 0 else (
		           select count(*) from (
		             select l.created_at from lifecycle_events l
		              where l.tenant_id = $1 and l.kind = 'leaver' order by l.sequence desc limit $5) newest
		            where newest.created_at > s.at) end n
		    from policy p, since s),
		too_many as (
		  select l.n from leaving l, policy p
		   where l.n > p.threshold_leavers
		      or (l.n >= $4 and p.threshold_share is not null and l.n > p.threshold_share * (
		            select count(*) + l.n from resources
		             where tenant_id = $1 and type = 'User' and deleted_at is null and active is distinct from false))),
		engaged as (
		  insert into holds as b (tenant_id, id, leavers)
		  select $1, $3, n from too_many where not exists (select 1 from already)
		  -- Of concurrent cascades, one inserts the hold, and all are held.
		  on conflict (tenant_id) where approved_at is null do update set leavers = b.leavers
		  returning id),
		by as (select id from already union all select id from engaged),
		marked as (
		  update lifecycle_events l set hold_id = by.id from by, since s
		   where l.tenant_id = $1 and l.id = $2 and (l.created_at > s.at or l.hold_id = by.id) returning 1)
		select exists (select 1 from marked)`, tenant, event, uuid.New(), fewestForShare, mostCounted)
	if err != nil {
		return false, fmt.Errorf("check the deactivation threshold: %w", err)
	}
	return held, nil
}

// Held reports whether a cascade is held by a hold that has not been approved.
func (b *Threshold) Held(ctx context.Context, tenant, event uuid.UUID) (bool, error) {
	held, err := database.Row(ctx, b.db, tenant, pgx.RowTo[bool], `
		select exists (
		  select 1 from lifecycle_events e
		    join holds b on b.tenant_id = e.tenant_id and b.id = e.hold_id and b.approved_at is null
		 where e.tenant_id = $1 and e.id = $2)`, tenant, event)
	if err != nil {
		return false, fmt.Errorf("read whether cascade %s is held: %w", event, err)
	}
	return held, nil
}

// Holds returns a tenant's holds, the newest first.
func (b *Threshold) Holds(ctx context.Context, tenant uuid.UUID) ([]Hold, error) {
	holds, err := database.Rows(ctx, b.db, tenant, pgx.RowToStructByPos[Hold], `
		select b.id, b.leavers, b.held_at,
		       (`+releasedSQL+`),
		       b.approved_at, b.approved_by, b.reason
		  from holds b where b.tenant_id = $1 order by b.held_at desc limit 100`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list holds: %w", err)
	}
	return holds, nil
}

// releasedSQL counts the open cascades that an approval of the hold b releases.
const releasedSQL = `select count(*) from lifecycle_events e
	where e.tenant_id = b.tenant_id and e.closed_at is null and (e.hold_id = b.id
	   or (b.approved_at is null and e.kind = 'leaver' and e.hold_id is null and e.begun_at is null))`

// Approve approves the cascades that the tenant's hold stops. With atMost, it refuses to approve more
// of them than the approver has seen; 0 approves any number. Errors: [ErrNotHeld], [ErrMoreHeld].
func (b *Threshold) Approve(ctx context.Context, tenant uuid.UUID, by, reason string, atMost int) (uuid.UUID, error) {
	var id uuid.UUID
	var approved bool
	err := database.Together(ctx, b.db, tenant, database.Statement{
		SQL: `
			with hold as (
			  select b.id, $4 = 0 or (` + releasedSQL + `) <= $4 approved from holds b
			   where b.tenant_id = $1 and b.approved_at is null for update),
			done as (
			  update holds h set approved_at = now(), approved_by = $2, reason = $3
			    from hold where h.tenant_id = $1 and h.id = hold.id and hold.approved returning h.id),
			acted as (
			  insert into admin_acts (tenant_id, actor, verb, object, after)
			  select $1, $2, $5, id::text, jsonb_build_object('reason', $3::text) from done)
			select id, approved from hold`,
		Args: []any{tenant, by, reason, atMost, audit.HoldApprove}, Collect: database.Fields(&id, &approved),
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return uuid.Nil, ErrNotHeld
	case err != nil:
		return uuid.Nil, fmt.Errorf("approve the hold: %w", err)
	case !approved:
		return uuid.Nil, ErrMoreHeld
	}
	return id, nil
}

// HeldWorkflows returns the workflows that a hold stops, after the given one in
// the order of their events.
func (b *Threshold) HeldWorkflows(
	ctx context.Context, tenant, hold uuid.UUID, after int64, limit int,
) (workflows []string, last int64, err error) {
	type held struct {
		WorkflowID string
		Sequence   int64
	}
	found, err := database.Rows(ctx, b.db, tenant, pgx.RowToStructByPos[held], `
		select workflow_id, sequence from lifecycle_events
		 where tenant_id = $1 and hold_id = $2 and closed_at is null and sequence > $3
		 order by sequence limit $4`, tenant, hold, after, limit)
	if err != nil {
		return nil, 0, fmt.Errorf("list the held workflows: %w", err)
	}
	for _, h := range found {
		workflows, last = append(workflows, h.WorkflowID), h.Sequence
	}
	return workflows, last, nil
}
