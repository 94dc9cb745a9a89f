package workflows

import (
	"fmt"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/cascade"
)

// unblock undoes the blocks of a cascade that was cancelled, where the holders are active again. An item that cannot be
// unblocked within the deadline stays blocked, and its evidence says so.
func (c *cascadeRun) unblock(ctx workflow.Context, interrupted error) {
	if !temporal.IsCanceledError(interrupted) ||
		workflow.GetVersion(ctx, "cancel-unblocks", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return
	}
	var blocked []cascade.Item
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Blocked, c.in.ref()).Get(ctx, &blocked); err != nil {
		workflow.GetLogger(ctx).Error("failed to list what is blocked", "error", err)
		return
	}
	var items []*item
	for _, b := range blocked {
		items = append(items, &item{Item: b})
	}
	var pending []workflow.Future
	for n, batch := range c.batchesOf(items) {
		connector := batch[0].Connector
		options := c.options(ctx, connector)
		options.ScheduleToCloseTimeout = c.in.Policy.Deadline
		options.ActivityID = fmt.Sprintf("unblock:%s:%d", connector, n+1)
		options.Summary = fmt.Sprintf("unblock %d items at %s", len(batch), connector)
		in := activities.BatchInput{Cascade: c.in.ref(), Items: idsOf(batch)}
		pending = append(pending, workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), a.Unblock, in))
	}
	for _, f := range pending {
		if err := done(ctx, f); err != nil {
			workflow.GetLogger(ctx).Error("failed to unblock items", "error", err)
		}
	}
}
