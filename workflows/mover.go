package workflows

import "go.temporal.io/sdk/workflow"

// Mover runs when a principal's attributes change, or an agent's owners: it tells the platforms.
func Mover(ctx workflow.Context, in Input) error {
	return recordAndNotify(ctx, in, "principal.mover")
}
