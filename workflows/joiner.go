package workflows

import "go.temporal.io/sdk/workflow"

// Joiner runs when a principal arrives, or returns: it tells the platforms. Returning restores no credential.
func Joiner(ctx workflow.Context, in Input) error {
	return recordAndNotify(ctx, in, "principal.joiner")
}
