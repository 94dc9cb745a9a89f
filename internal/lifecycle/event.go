// Package lifecycle turns changes of principals into events: a change, the
// restriction that decision points consult, and the event commit together (I1,
// I2), and each event starts exactly one workflow (I3).
package lifecycle

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Kind is what happened to a principal.
type Kind string

// The kinds, each with a workflow of its own.
const (
	Joiner   Kind = "joiner"    // arrived, or returned
	Mover    Kind = "mover"     // changed
	Leaver   Kind = "leaver"    // went
	TeamSync Kind = "team-sync" // a group's members or name changed
)

// Event is one lifecycle change, as committed to the outbox.
type Event struct {
	Tenant        uuid.UUID
	ID            uuid.UUID
	Sequence      int64 // its place among all events and registrations
	Kind          Kind
	Principal     uuid.UUID
	PrincipalType string
	Trigger       string   // e.g. scim-patch
	Actor         string   // who caused it, e.g. scim-token/<id>
	Changed       []string // names of changed attributes, never their values
	WorkflowID    string
}

// WorkflowID is deterministic, so that starting twice is harmless; it carries
// ids only, since Temporal never encrypts it.
func workflowID(kind Kind, tenant, principal uuid.UUID, version int64) string {
	return fmt.Sprintf("%s/%s/%s/%d", kind, tenant, principal, version)
}

// Starter starts the workflow of an event, or finds that it was started before.
type Starter interface {
	Start(ctx context.Context, e Event) (runID string, err error)
}

// grace is how long the writer has to start a workflow itself before the relay
// takes the event for undelivered.
const grace = time.Second

func insertEvent(ctx context.Context, tx pgx.Tx, e *Event) error {
	if e.Changed == nil {
		e.Changed = []string{}
	}
	return tx.QueryRow(ctx, `
		insert into lifecycle_events (tenant_id, id, kind, principal_id, principal_type, trigger, actor, changed, workflow_id, due_at)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + $10)
		returning sequence`,
		e.Tenant, e.ID, e.Kind, e.Principal, e.PrincipalType, e.Trigger, e.Actor, e.Changed, e.WorkflowID, grace).
		Scan(&e.Sequence)
}

func markStarted(ctx context.Context, tx pgx.Tx, e Event, runID string) error {
	_, err := tx.Exec(ctx, `
		update lifecycle_events set started_at = now(), run_id = $3, last_error = null
		 where tenant_id = $1 and id = $2 and started_at is null`, e.Tenant, e.ID, runID)
	return err
}
