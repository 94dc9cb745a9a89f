// Package activities holds the steps of the workflows: one file a verb. Each
// can run twice (I5), and each error it returns says whether to try again.
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
	Credentials  *credential.Store
	Evidence   *evidence.Store
	Cascades   *cascade.Store
	Connectors registry.Registry
	Pauses     *registry.Pauses
	Threshold     *cascade.Threshold
	// What the reconciler and the drill need: they make leavers themselves.
	Tenants    *tenant.Store
	Directory  *directory.Store
	Lifecycle  *lifecycle.Writer
	Health *health.Store
	Runner     Runner
	// Signals are what receivers are to be told, and Pusher tells them.
	Signals *ssf.Store
	Pusher  *ssf.Pusher
	// Entitlements derives what principals are entitled to.
	Entitlements *entitlement.Store
}

// Runner looks at cascades' workflows, and runs them again.
type Runner interface {
	Status(ctx context.Context, workflowID string) (cascade.WorkflowStatus, error)
	Cancel(ctx context.Context, workflowID string) error
	Rerun(ctx context.Context, e lifecycle.Event) (runID string, err error)
}

// CascadeRef names a cascade: ids only, since it travels through Temporal.
type CascadeRef struct {
	Tenant    uuid.UUID `json:"tenant"`
	Event     uuid.UUID `json:"event"`
	Principal uuid.UUID `json:"principal"`
	Sequence  int64     `json:"sequence"`
	// Moves: the cascade is a mover's, and ends what its event has marked only.
	Moves bool `json:"moves,omitempty"`
}

// kind is that of the events whose workflows are named so.
func (r CascadeRef) kind() lifecycle.Kind {
	if r.Moves {
		return lifecycle.Mover
	}
	return lifecycle.Leaver
}

// refusedRun makes what says that a run is not its event's a refusal for good.
func refusedRun(err error) error {
	if errors.Is(err, cascade.ErrOtherKind) || errors.Is(err, cascade.ErrCancelled) || errors.Is(err, cascade.ErrNotFound) {
		return temporal.NewApplicationErrorWithOptions(err.Error(), ErrorForeign, temporal.ApplicationErrorOptions{NonRetryable: true, Cause: err})
	}
	return err
}

func (r CascadeRef) scope() cascade.Scope {
	return cascade.Scope{Event: r.Event, Principal: r.Principal, Sequence: r.Sequence, Moves: r.Moves}
}
