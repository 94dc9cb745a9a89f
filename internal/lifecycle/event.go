// Package lifecycle turns changes of principals into events: a change, the
// restriction that decision points consult, and the event commit together (I1,
// I2), and each event starts exactly one workflow (I3).
package lifecycle

import (
	"context"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/fault"
)

// Kind is what happened to a principal.
type Kind string

// The kinds. Each has its own workflow.
const (
	Joiner   Kind = "joiner"    // was created, or returned
	Mover    Kind = "mover"     // changed
	Leaver   Kind = "leaver"    // was deactivated or deleted
	TeamSync Kind = "team-sync" // a group's members or name changed
)

// ErrEventNotFound is returned if the tenant has no event with the given id.
var ErrEventNotFound = fault.New(fault.NotFound, "no such lifecycle event")

// Event is one lifecycle change, as committed to the outbox.
type Event struct {
	Tenant        uuid.UUID
	ID            uuid.UUID
	Sequence      int64 // position among all events and registrations
	Kind          Kind
	Principal     uuid.UUID
	PrincipalType string
	Trigger       Trigger
	Actor         string   // e.g. scim-token/<id>
	Changed       []string // names of changed attributes, never their values
	WorkflowID    string   // see workflowID
	CreatedAt     time.Time
	// Trace is the span of the request, as a traceparent (W3C Trace Context); empty if it is not traced.
	Trace string
}

// workflowID returns the ID of an event's workflow. It is deterministic, so that a repeated
// start is harmless (I3), and contains only IDs, since Temporal does not encrypt it. sequence
// is 0 if no other event has this version of the resource.
func workflowID(kind Kind, tenant, principal uuid.UUID, version, sequence int64) string {
	id := string(kind) + "/" + tenant.String() + "/" + principal.String() + "/" + strconv.FormatInt(version, 10)
	if sequence != 0 {
		id += "." + strconv.FormatInt(sequence, 10)
	}
	return id
}

// Starter starts the workflow of an event, or returns the run that was started before.
type Starter interface {
	Start(ctx context.Context, e Event) (runID string, err error)
}

// grace is how long the writer has to start the workflow of an event before the relay
// starts it.
const grace = time.Second
