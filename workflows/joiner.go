package workflows

import "go.temporal.io/sdk/workflow"

// Joiner runs when a principal arrives, or returns: what it is entitled to is
// derived and stored, and the platforms are told. Returning restores entitlements,
// never credentials, and cancels no cascade that still runs.
func Joiner(ctx workflow.Context, in Input) error {
	entitled, err := entitle(ctx, in)
	if err != nil {
		return err
	}
	return recordAndNotify(ctx, in, told{kind: "principal.joiner", entitled: entitled})
}
