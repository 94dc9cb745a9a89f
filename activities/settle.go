package activities

import (
	"context"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

	"github.com/leaverhq/leaver/internal/cascade"
)

// Settlement is the result of Settle.
type Settlement struct {
	Suspended []uuid.UUID `json:"suspended,omitempty"`
	// HandedOver are the agents whose owner is now the leaver's manager.
	HandedOver []uuid.UUID `json:"handedOver,omitempty"`
	// Held is true if the cascade is held for approval of a mass deactivation.
	Held bool `json:"held,omitempty"`
	// Found is the first page of the items to end; empty if the cascade is held.
	Found []cascade.Item `json:"found,omitempty"`
}

// Settle starts a run: it hands over or suspends the agents that lost their last active
// owner, resets the survivors of an earlier run of the same cascade to live, checks the
// deactivation threshold, and discovers the first page of items.
func (a *Activities) Settle(ctx context.Context, ref CascadeRef) (Settlement, error) {
	run := activity.GetInfo(ctx).WorkflowExecution.RunID
	if err := a.Cascades.Running(ctx, ref.Tenant, ref.Event, ref.kind(), run); err != nil {
		return Settlement{}, refusedRun(err)
	}
	activity.GetLogger(ctx).Info(
		"cascade began", "tenant", ref.Tenant, "cascade", ref.Event, "principal", ref.Principal,
	)
	var held bool
	if !ref.Moves { // the threshold does not count movers
		var err error
		if held, err = a.Threshold.Check(ctx, ref.Tenant, ref.Event); err != nil {
			return Settlement{}, err
		}
	}
	s := Settlement{Held: held}
	err := a.Cascades.BeginRun(ctx, ref.Tenant, ref.scope())
	if err == nil && !ref.Moves {
		s.HandedOver, s.Suspended, err = a.Lifecycle.SettleAgents(ctx, ref.Tenant, ref.Principal, ref.Event)
	}
	if err == nil && !ref.Moves {
		err = a.Entitlements.Withdraw(ctx, ref.Tenant, append([]uuid.UUID{ref.Principal}, s.Suspended...), ref.Event)
	}
	if err == nil && !held {
		s.Found, err = a.Discover(ctx, DiscoverInput{Cascade: ref})
	}
	return s, err
}
