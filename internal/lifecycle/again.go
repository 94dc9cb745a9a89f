package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// ErrNotRestricted says that the principal is here: there is nothing to end.
var ErrNotRestricted = errors.New("the principal is not restricted")

const (
	// TriggerBound is the trigger of the cascade for what an operator bound to
	// somebody who is gone.
	TriggerBound = "bound"
	// TriggerReconcile is the trigger of the cascade for what the reconciler found
	// alive of somebody who is gone.
	TriggerReconcile = "reconcile"
)

// The triggers of what comes in other ways than SCIM.
const (
	TriggerOperator   = "operator"                // an operator's word
	TriggerRevocation = "global-token-revocation" // an IdP's
	TriggerSignal     = "security-event"          // a transmitter's
	TriggerExpired    = "validity-expired"        // an agent's time was over
)

// Restore lifts a principal's restriction and makes it a joiner, as an explicit
// `active: true` would: it is entitled again, and no credential comes back. Cascades
// that run go on. Errors: directory.ErrNotFound, [ErrNotRestricted].
func (w *Writer) Restore(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, by Cause) (Result, error) {
	return w.Update(ctx, tenant, resourceType, id, by, func(current *directory.Resource) (*directory.Resource, error) {
		if !current.Restricted() {
			return nil, ErrNotRestricted
		}
		return returned(current)
	})
}

func returned(current *directory.Resource) (*directory.Resource, error) {
	var document map[string]json.RawMessage
	if err := json.Unmarshal(current.Document, &document); err != nil {
		return nil, fmt.Errorf("read the document of %s: %w", current.ID, err)
	}
	after, active := *current, true
	document["active"] = json.RawMessage("true")
	encoded, err := json.Marshal(document)
	after.Active, after.Document, after.Changed = &active, encoded, []string{"active"}
	return &after, err
}

// EndAgain makes a restricted principal a leaver once more, for what came to
// light since. Error: [ErrNotRestricted].
func (w *Writer) EndAgain(ctx context.Context, tenant, principal uuid.UUID, by Cause) (*Event, error) {
	e := Event{Tenant: tenant, ID: newID(), Kind: Leaver, Principal: principal, Trigger: by.Trigger, Actor: by.Actor, Changed: []string{}, CreatedAt: time.Now()}
	_, err := database.Once(ctx, w.db, tenant, func(rows pgx.Rows) (struct{}, error) {
		return pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
			return struct{}{}, row.Scan(&e.Sequence, &e.PrincipalType, &e.WorkflowID)
		})
	}, `
		with gone as materialized (
		  select r.id, r.type, r.version, nextval('lifecycle_sequence') sequence
		    from resources r join restrictions x on x.tenant_id = $1 and x.principal_id = r.id
		   where r.tenant_id = $1 and r.id = $2),
		again as (
		  insert into lifecycle_events (tenant_id, id, sequence, kind, principal_id, principal_type, trigger, actor, workflow_id, due_at)
		  select $1, $3, sequence, 'leaver', id, type, $4, $5, 'leaver/' || $1 || '/' || id || '/' || version || '.' || sequence, now() + $6::interval
		    from gone returning sequence, principal_type, workflow_id),
		told as (
		  update restrictions x set event_id = $3 from gone where x.tenant_id = $1 and x.principal_id = gone.id)
		select sequence, principal_type, workflow_id from again`, tenant, principal, e.ID, by.Trigger, by.Actor, grace)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNotRestricted
	}
	if err != nil {
		return nil, fmt.Errorf("end %s again: %w", principal, err)
	}
	w.dispatch(ctx, &e)
	return &e, nil
}
