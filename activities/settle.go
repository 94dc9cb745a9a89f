package activities

import (
	"context"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

	"github.com/leaverhq/leaver/internal/cascade"
)

// Settlement is what Settle found.
type Settlement struct {
	Suspended []uuid.UUID `json:"suspended,omitempty"`
	// HandedOver are the agents that the leaver's manager owns now.
	HandedOver []uuid.UUID `json:"handedOver,omitempty"`
	// Held: the tenant's brake is held, and holds this cascade back.
	Held bool `json:"held,omitempty"`
	// Found is the first page of what the cascade has to end, unless it is held back.
	Found []cascade.Item `json:"found,omitempty"`
}

// Settle opens a run: it hands over or suspends the agents that lost their last
// active owner, makes the survivors of an earlier run of the same cascade live
// again, looks whether too many leave at once, and discovers a first page of what there is
// to end.
func (a *Activities) Settle(ctx context.Context, ref CascadeRef) (Settlement, error) {
	run := activity.GetInfo(ctx).WorkflowExecution.RunID
	if err := a.Cascades.Running(ctx, ref.Tenant, ref.Event, ref.kind(), run); err != nil {
		return Settlement{}, refusedRun(err)
	}
	activity.GetLogger(ctx).Info("cascade began", "tenant", ref.Tenant, "cascade", ref.Event, "principal", ref.Principal)
	var held bool
	if !ref.Moves { // a mover goes nowhere
		var err error
		if held, err = a.Threshold.Check(ctx, ref.Tenant, ref.Event); err != nil {
			return Settlement{}, err
		}
	}
	s := Settlement{Held: held}
	err := a.Cascades.BeginRun(ctx, ref.Tenant, ref.scope())
	if err == nil && !ref.Moves {
		s.HandedOver, s.Suspended, err = a.Lifecycle.Settle(ctx, ref.Tenant, ref.Principal, ref.Event)
	}
	if err == nil && !ref.Moves {
		err = a.Entitlements.Withdraw(ctx, ref.Tenant, append([]uuid.UUID{ref.Principal}, s.Suspended...), ref.Event)
	}
	if err == nil && !held {
		s.Found, err = a.Discover(ctx, DiscoverInput{Cascade: ref})
	}
	return s, err
}
