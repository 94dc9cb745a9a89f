package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/cascade"
)

const (
	// unblockDeadline bounds how long a cancelled cascade tries to undo its blocks. What it cannot undo stays blocked.
	unblockDeadline = 15 * time.Minute
	// maxUnblocks is the number of activities that it waits for at a time.
	maxUnblocks = 100
)

// unblock undoes the blocks of a cascade that was cancelled, where the holders are active again.
func (c *cascadeRun) unblock(ctx workflow.Context, outcome string) {
	if outcome != "cancelled" ||
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
	batches := c.batchesOf(items)
	for n, batch := range batches {
		connector := batch[0].Connector
		options := c.options(ctx, connector)
		options.ScheduleToCloseTimeout = unblockDeadline
		options.ActivityID = fmt.Sprintf("unblock:%s:%d", connector, n+1)
		options.Summary = fmt.Sprintf("unblock %d items at %s", len(batch), connector)
		in := activities.BatchInput{Cascade: c.in.ref(), Items: idsOf(batch)}
		pending = append(pending, workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), a.Unblock, in))
		if len(pending) < maxUnblocks && n < len(batches)-1 {
			continue
		}
		for _, f := range pending {
			if err := done(ctx, f); err != nil {
				workflow.GetLogger(ctx).Error("failed to unblock items", "error", err)
			}
		}
		pending = nil
	}
}
