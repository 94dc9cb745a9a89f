package cascade

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
)

// ErrTransactionNotFound is returned when no workflow of the tenant has the ID.
var ErrTransactionNotFound = fault.New(fault.NotFound, "no such transaction")

// Transaction is a lifecycle event of any kind with the state of its workflow. Clients of
// asynchronous requests poll it.
type Transaction = Cascade

// Transaction returns the event whose workflow has the ID. Error: [ErrTransactionNotFound].
func (c *Store) Transaction(ctx context.Context, tenant uuid.UUID, workflowID string) (Transaction, error) {
	t, err := database.Row(ctx, c.db, tenant, pgx.RowToStructByPos[Transaction], `select `+cascadeColumns+`
		from `+cascadeTables+` where e.tenant_id = $1 and e.workflow_id = $2`, tenant, workflowID)
	if errors.Is(err, pgx.ErrNoRows) {
		return Transaction{}, ErrTransactionNotFound
	}
	if err != nil {
		return Transaction{}, fmt.Errorf("get transaction %s: %w", workflowID, err)
	}
	return t, nil
}

// NotifyOnCompletion emits a security event to the tenant's streams when the event's workflow
// closes, or now if it is closed (RFC 9967 section 2.5).
func (c *Store) NotifyOnCompletion(ctx context.Context, tenant, event uuid.UUID) error {
	err := c.end(ctx, tenant, func(e *ended) database.Statement {
		return database.Statement{
			SQL: `
			update lifecycle_events e set async = true where e.tenant_id = $1 and e.id = $2
			returning e.closed_at is not null, ` + endedColumns, Args: []any{tenant, event},
			Collect: database.Fields(e.fields()...),
		}
	}, nil)
	if err != nil {
		return fmt.Errorf("mark event %s: %w", event, err)
	}
	return nil
}
