// Package activities implements the activities of the workflows. Each can run
// twice (I5), and the type of its error decides whether Temporal retries it.
package activities

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/entitlement"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/internal/ssf"
	"github.com/leaverhq/leaver/internal/tenant"
)

// Activities are registered with the workers. A nil pointer gives workflows
// typed references to the methods.
type Activities struct {
	Credentials *credential.Store
	Evidence    *evidence.Store
	Cascades    *cascade.Store
	Connectors  registry.Registry
	Pauses      *registry.Pauses
	Threshold   *cascade.Threshold
	// The reconciler and the drill need these, as they create events themselves.
	Tenants   *tenant.Store
	Directory *directory.Store
	Lifecycle *lifecycle.Writer
	Health    *health.Store
	Runner    Runner
	// Signals stores security events for receivers, and Pusher delivers them.
	Signals *ssf.Store
	Pusher  *ssf.Pusher
	// Entitlements evaluates and stores the entitlements of principals.
	Entitlements *entitlement.Store
}

// Runner queries, cancels and re-runs the workflows of cascades.
type Runner interface {
	Status(ctx context.Context, workflowID, run string) (cascade.WorkflowStatus, error)
	Cancel(ctx context.Context, workflowID string) error
	// Restart starts the workflow again, however its last run closed.
	Restart(ctx context.Context, e lifecycle.Event) (runID string, err error)
	Replace(ctx context.Context, e lifecycle.Event) (runID string, err error)
}

// Done is the result of an activity without another one. A workflow requires it: without a sealed
// result, it could not tell leaver's completion from that of another client of the namespace.
type Done struct{}

// CascadeRef identifies a cascade. It contains only ids, since Temporal stores it.
type CascadeRef struct {
	Tenant    uuid.UUID `json:"tenant"`
	Event     uuid.UUID `json:"event"`
	Principal uuid.UUID `json:"principal"`
	Sequence  int64     `json:"sequence"`
	// Moves is true for a mover's cascade, which ends only the items that its event has marked.
	Moves bool `json:"moves,omitempty"`
}

// kind returns the kind of the cascade's event.
func (r CascadeRef) kind() lifecycle.Kind {
	if r.Moves {
		return lifecycle.Mover
	}
	return lifecycle.Leaver
}

// refusedRun returns a non-retryable error if err says that the workflow run does not
// belong to its event, and otherwise err.
func refusedRun(err error) error {
	if errors.Is(err, cascade.ErrOtherKind) || errors.Is(err, cascade.ErrCancelled) ||
		errors.Is(err, cascade.ErrCompleted) ||
		errors.Is(err, cascade.ErrNotFound) {
		return temporal.NewApplicationErrorWithOptions(err.Error(), ErrorForeign, temporal.ApplicationErrorOptions{
			NonRetryable: true, Cause: err,
		})
	}
	return err
}

func (r CascadeRef) scope() cascade.Scope {
	return cascade.Scope{Event: r.Event, Principal: r.Principal, Sequence: r.Sequence, Moves: r.Moves}
}
