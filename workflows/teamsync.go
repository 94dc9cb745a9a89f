package workflows

import "go.temporal.io/sdk/workflow"

// TeamSync runs when a group's members or name change, or it is deleted: it tells the platforms.
func TeamSync(ctx workflow.Context, in Input) error {
	return recordAndNotify(ctx, in, "group.changed")
}
