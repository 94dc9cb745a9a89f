package activities

import (
	"context"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
)

// Settlement is what Settle found.
type Settlement struct {
	Suspended []uuid.UUID `json:"suspended,omitempty"`
	// HandedOver are the agents that the leaver's manager owns now.
	HandedOver []uuid.UUID `json:"handedOver,omitempty"`
	// Held: the tenant's brake is held, and holds this cascade back.
	Held bool `json:"held,omitempty"`
}

// Settle opens a run: it hands over or suspends the agents that lost their last
// active owner, makes the survivors of an earlier run of the same cascade live
// again, and looks whether too many leave at once.
func (a *Activities) Settle(ctx context.Context, ref CascadeRef) (Settlement, error) {
	run := activity.GetInfo(ctx).WorkflowExecution.RunID
	if err := a.Cascades.Running(ctx, ref.Tenant, ref.Event, ref.kind(), run); err != nil {
		return Settlement{}, refusedRun(err)
	}
	var held bool
	if !ref.Moves { // a mover goes nowhere
		var err error
		if held, err = a.Brakes.Check(ctx, ref.Tenant, ref.Event); err != nil {
			return Settlement{}, err
		}
	}
	if err := a.Inventory.Settle(ctx, ref.Tenant, ref.scope()); err != nil || ref.Moves {
		return Settlement{Held: held}, err
	}
	handedOver, suspended, err := a.Lifecycle.Settle(ctx, ref.Tenant, ref.Principal, ref.Event)
	if err != nil {
		return Settlement{}, err
	}
	err = a.Entitlements.Withdraw(ctx, ref.Tenant, append([]uuid.UUID{ref.Principal}, suspended...), ref.Event)
	return Settlement{Suspended: suspended, HandedOver: handedOver, Held: held}, err
}
