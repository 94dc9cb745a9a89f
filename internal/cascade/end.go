package cascade

import (
	"context"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/ssf"
)

// ended is an event that closes, with the fields that signals needs.
type ended struct {
	notifies      bool // the event was open before, or its client has just asked for a notification
	id            uuid.UUID
	kind          lifecycle.Kind
	principal     uuid.UUID
	principalType string
	trigger       lifecycle.Trigger
	workflow      string
	outcome       string
	async         bool
}

// endedColumns are the columns of [ended] for an event e.
const endedColumns = `e.id, e.kind, e.principal_id, e.principal_type, e.trigger, e.workflow_id,
	coalesce(e.outcome, ''), e.async`

// fields returns the scan targets of the column notifies and of [endedColumns].
func (e *ended) fields() []any {
	return []any{
		&e.notifies, &e.id, &e.kind, &e.principal, &e.principalType, &e.trigger, &e.workflow,
		&e.outcome, &e.async,
	}
}

// signals returns the response to an asynchronous request (RFC 9967 section 2.5).
func (e *ended) signals() []ssf.Signal {
	if !e.notifies {
		return nil
	}
	var signals []ssf.Signal
	if e.async {
		method, status := e.trigger.Request()
		signals = append(signals, ssf.Signal{
			Principal: e.principal, PrincipalType: e.principalType, Type: ssf.AsyncResponse, Txn: e.workflow,
			Once:  e.id.String(),
			Event: map[string]any{"method": method, "status": status},
		})
	}
	return signals
}

// end runs statement, then the statements that then returns, and stores the signals, in one
// transaction. If statement returns pgx.ErrNoRows, nothing is committed.
func (c *Store) end(
	ctx context.Context, tenant uuid.UUID, statement func(*ended) database.Statement,
	then func(*ended) []database.Statement,
) error {
	var e ended
	open, err := c.db.Begin(ctx, tenant, statement(&e))
	if err != nil {
		return err
	}
	defer open.Rollback(ctx)
	var queued []database.Statement
	if then != nil {
		queued = then(&e)
	}
	if signals := e.signals(); len(signals) > 0 {
		queued = append(queued, ssf.Record(tenant, signals...))
	}
	return open.Commit(ctx, queued...)
}
