package cascade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
)

// Waiver is a request to waive the end of a credential, which an approver has not decided on.
type Waiver struct {
	ID          uuid.UUID       `json:"id"`
	Cascade     uuid.UUID       `json:"cascadeId"`
	Item        uuid.UUID       `json:"itemId"`
	Kind        connectors.Kind `json:"kind"`
	Connector   string          `json:"connector"`
	Reference   string          `json:"reference"`
	Until       time.Time       `json:"until"`
	Reason      string          `json:"reason"`
	RequestedBy string          `json:"requestedBy"`
	RequestedAt time.Time       `json:"requestedAt"`
}

// ErrNoWaiver is returned if no open request for a waiver has the id.
var ErrNoWaiver = fault.New(fault.NotFound,
	"no such request for a waiver: it was decided, or the credential has ended, or the waiver would have expired")

// openWaivers selects the requests that can still be approved.
const openWaivers = `
	select w.id, w.event_id, w.item_id, i.kind, i.connector, i.reference, w.until, w.reason, w.requested_by, w.requested_at
	  from waivers w join credentials i on i.tenant_id = w.tenant_id and i.id = w.item_id
	 where w.tenant_id = $1 and w.decision is null and w.until > now()
	   and i.state in ('live', 'ending', 'failed', 'waived') `

// RequestWaiver stores a request for a waiver, for an approver to decide on, and records it as an act on the cascade.
// It returns the id of the request.
func (c *Store) RequestWaiver(
	ctx context.Context, tenant, id, event uuid.UUID, by, reason string, until time.Time,
) (uuid.UUID, error) {
	request := uuid.New()
	err := database.Exec(ctx, c.db, tenant, `
		with requested as (
		  insert into waivers (tenant_id, id, event_id, item_id, until, reason, requested_by)
		  values ($1, $2, $4, $3, $7, $6, $5))
		insert into acts (tenant_id, event_id, actor, verb, reason) values ($1, $4, $5, 'request-waiver', $6)`,
		tenant, request, id, event, by, reason, until)
	if err != nil {
		return uuid.Nil, fmt.Errorf("request a waiver of %s: %w", id, err)
	}
	return request, nil
}

// Waivers returns the requests for waivers that an approver can decide on, oldest first.
func (c *Store) Waivers(ctx context.Context, tenant uuid.UUID, limit int) ([]Waiver, error) {
	open, err := database.Rows(ctx, c.db, tenant, pgx.RowToStructByPos[Waiver],
		openWaivers+`order by w.requested_at, w.id limit $2`, tenant, limit)
	if err != nil {
		return nil, fmt.Errorf("list the requests for waivers: %w", err)
	}
	return open, nil
}

// Waiver returns a request for a waiver that an approver can decide on. Error: [ErrNoWaiver].
func (c *Store) Waiver(ctx context.Context, tenant, id uuid.UUID) (Waiver, error) {
	w, err := database.Row(ctx, c.db, tenant, pgx.RowToStructByPos[Waiver], openWaivers+`and w.id = $2`, tenant, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return Waiver{}, ErrNoWaiver
	}
	if err != nil {
		return Waiver{}, fmt.Errorf("read the request %s for a waiver: %w", id, err)
	}
	return w, nil
}

// The decisions on a request for a waiver.
const (
	Approved = "approved"
	Declined = "declined"
)

// DecideWaiver records an approver's decision on a request, and that a request was declined as an act on its cascade:
// an approval is recorded by the waiver. A request that is decided keeps its first decision.
func (c *Store) DecideWaiver(ctx context.Context, tenant, id uuid.UUID, decision, by, reason string) error {
	err := database.Exec(ctx, c.db, tenant, `
		with decided as (
		  update waivers set decision = $3, decided_by = $4, decided_at = now()
		   where tenant_id = $1 and id = $2 and decision is null returning event_id)
		insert into acts (tenant_id, event_id, actor, verb, reason)
		select $1, event_id, $4, 'decline-waiver', $5 from decided where $3 = 'declined'`,
		tenant, id, decision, by, reason)
	if err != nil {
		return fmt.Errorf("decide on the request %s for a waiver: %w", id, err)
	}
	return nil
}
