package activities

import (
	"context"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
)

// Settlement is what Settle found.
type Settlement struct {
	Suspended []uuid.UUID `json:"suspended,omitempty"`
}

// Settle opens a run: it suspends the agents that lost their last active owner,
// and makes the survivors of an earlier run of the same cascade live again.
func (a *Activities) Settle(ctx context.Context, ref CascadeRef) (Settlement, error) {
	run := activity.GetInfo(ctx).WorkflowExecution.RunID
	if err := a.Cascades.Running(ctx, ref.Tenant, ref.Event, run); err != nil {
		return Settlement{}, err
	}
	suspended, err := a.Inventory.Settle(ctx, ref.Tenant, ref.scope())
	return Settlement{Suspended: suspended}, err
}
