// Package lifecycle turns changes of principals into events: a change, the
// restriction that decision points consult, and the event commit together (I1,
// I2), and each event starts exactly one workflow (I3).
package lifecycle

import (
	"context"
	"time"

	"github.com/google/uuid"
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
	// WorkflowID is <kind>/<tenant>/<principal>/<version>: deterministic, so that
	// starting twice is harmless, and of ids only, since Temporal never encrypts it.
	WorkflowID string
	CreatedAt  time.Time
}

// Starter starts the workflow of an event, or finds that it was started before.
type Starter interface {
	Start(ctx context.Context, e Event) (runID string, err error)
}

// grace is how long the writer has to start a workflow itself before the relay
// takes the event for undelivered.
const grace = time.Second
