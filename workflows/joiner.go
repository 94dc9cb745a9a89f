package workflows

import "go.temporal.io/sdk/workflow"

// Joiner runs when a principal is created or reactivated. It evaluates and stores the
// principal's entitlements, and notifies the platforms. A reactivation restores
// entitlements, but no credentials, and does not cancel a running cascade.
func Joiner(ctx workflow.Context, in Input) error {
	entitled, err := entitle(ctx, in)
	if err != nil {
		return err
	}
	return recordAndNotify(ctx, in, notice{kind: "principal.joiner", entitled: entitled})
}
