package lifecycle

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/ssf"
)

// ended is an event whose workflow has ended, or whose client is to be notified of that.
type ended struct {
	notifies      bool // it was open before, or its client asked just now
	id            uuid.UUID
	kind          Kind
	principal     uuid.UUID
	principalType string
	trigger       Trigger
	workflow, run string
	outcome       string
	async         bool
	at            time.Time
}

// endedColumns are those of an event e.
const endedColumns = `e.id, e.kind, e.principal_id, e.principal_type, e.trigger, e.workflow_id, coalesce(e.run_id, ''), coalesce(e.outcome, ''), e.async, coalesce(e.closed_at, now())`

// fields are where a boolean and [endedColumns] are read to.
func (e *ended) fields() []any {
	return []any{&e.notifies, &e.id, &e.kind, &e.principal, &e.principalType, &e.trigger, &e.workflow, &e.run, &e.outcome, &e.async, &e.at}
}

// signals returns what receivers are notified of: that all sessions of a leaver have
// ended, where the cascade has ended everything; and that a request is done whose client
// did not wait (RFC 9967 section 2.5).
func (e *ended) signals() []ssf.Signal {
	if !e.notifies {
		return nil
	}
	var signals []ssf.Signal
	if e.kind == Leaver && e.outcome == "completed" {
		signals = append(signals, ssf.SessionsRevoked(e.principal, e.principalType, e.workflow, e.id.String()+"/"+e.run, e.at))
	}
	if e.async {
		method, status := e.trigger.Request()
		signals = append(signals, ssf.Signal{
			Principal: e.principal, PrincipalType: e.principalType, Type: ssf.AsyncResponse, Txn: e.workflow, Once: e.id.String(),
			Event: map[string]any{"method": method, "status": status},
		})
	}
	return signals
}

// end runs the statement that ends an event, and what then may be queued, and stores what
// receivers are notified of, in one transaction. The statement's collect may fail with
// pgx.ErrNoRows: nothing is committed then.
func (c *Cascades) end(ctx context.Context, tenant uuid.UUID, statement func(*ended) database.Statement, then func(*Tx, *ended)) error {
	var e ended
	open, err := c.db.Begin(ctx, tenant, statement(&e))
	if err != nil {
		return err
	}
	defer open.Rollback(ctx)
	tx := In(open, tenant, Cause{})
	if then != nil {
		then(tx, &e)
	}
	tx.notify(e.signals()...)
	return open.Commit(ctx, tx.take()...)
}
