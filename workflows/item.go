package workflows

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
)

// item is one credential or scheduled run that this run of the cascade has discovered.
type item struct {
	cascade.Item
	state  credential.State
	reason string
	round  int  // number of activities started for it
	again  bool // the pending activity was cancelled by Update retry
	cancel workflow.CancelFunc
}

// begin starts a coroutine that ends the item.
func (c *cascadeRun) begin(ctx workflow.Context, i *item) {
	c.set(i, credential.Ending, "")
	c.count(i, 1)
	c.show(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) { c.finish(ctx, i) })
}

// finish ends a started item individually, and records its outcome.
func (c *cascadeRun) finish(ctx workflow.Context, i *item) {
	for {
		result, err := c.end(ctx, i)
		if err != nil && ctx.Err() == nil && (i.again || c.wasPaused(ctx, err)) {
			continue
		}
		c.settleItem(ctx, i, result, err)
		break
	}
	c.count(i, -1)
	c.show(ctx)
}

func (c *cascadeRun) set(i *item, state credential.State, reason string) {
	if i.state != "" {
		c.counts[i.state]--
	}
	i.state, i.reason = state, reason
	c.counts[state]++
}

func (c *cascadeRun) count(i *item, by int) {
	c.inFlight += by
	if i.First() {
		c.runs += by
	}
}

// end runs the item's activity until it succeeds, fails permanently, passes the
// deadline, or is cancelled by a retry request.
func (c *cascadeRun) end(ctx workflow.Context, i *item) (activities.ItemResult, error) {
	i.again = false
	i.round++
	if err := c.reserve(ctx, i.Connector, 1); err != nil {
		return activities.ItemResult{}, err
	}
	defer func() { c.open[i.Connector]-- }()
	id := fmt.Sprintf("%s:%s:%s", i.Verb, i.Connector, i.ID)
	if i.round > 1 {
		id = fmt.Sprintf("%s#%d", id, i.round)
	}
	options := c.options(ctx, i.Connector)
	options.ActivityID, options.Summary = id, fmt.Sprintf("%s %s at %s", i.Verb, i.Kind, i.Connector)
	ctx, i.cancel = workflow.WithCancel(workflow.WithActivityOptions(ctx, options))
	var result activities.ItemResult
	err := workflow.ExecuteActivity(ctx, activityOf(i.Verb), activities.ItemInput{
		Cascade: c.in.ref(), Item: i.ID,
	}).Get(ctx, &result)
	return result, err
}

// options returns the options of activities on a connector's queue, which are retried
// until the deadline.
func (c *cascadeRun) options(ctx workflow.Context, connector string) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		TaskQueue:              connectors.TaskQueue(connector),
		ScheduleToCloseTimeout: max(c.deadline.Sub(workflow.Now(ctx)), c.in.Policy.AttemptTimeout),
		StartToCloseTimeout:    c.in.Policy.AttemptTimeout,
		HeartbeatTimeout:       heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: c.in.Policy.InitialInterval, BackoffCoefficient: 2,
			MaximumInterval: c.in.Policy.MaximumInterval,
		},
		Priority: c.in.priority(),
	}
}

// wasPaused reports whether the activity timed out because its connector was paused.
// Such a timeout does not count: it extends the deadline.
func (c *cascadeRun) wasPaused(ctx workflow.Context, err error) bool {
	if !activities.IsPaused(err) {
		return false
	}
	c.deadline = later(c.deadline, workflow.Now(ctx).Add(c.in.Policy.Deadline))
	return true
}

// activityOf returns the activity that ends items by a verb.
func activityOf(verb credential.Verb) func(context.Context, activities.ItemInput) (activities.ItemResult, error) {
	switch verb {
	case credential.Cancel:
		return a.Cancel
	case credential.Rotate:
		return a.Rotate
	case credential.Revoke:
	}
	return a.Revoke
}

// settleItem records the item's outcome. An item that passed the deadline was not
// concluded by its activity, and is abandoned here.
func (c *cascadeRun) settleItem(ctx workflow.Context, i *item, result activities.ItemResult, err error) {
	if i.state == credential.Waived {
		return
	}
	if err == nil {
		c.set(i, result.State, result.Detail)
		return
	}
	if temporal.IsCanceledError(err) && temporal.IsCanceledError(ctx.Err()) {
		return // with the cascade, whose report concludes the item
	}
	c.set(i, credential.Failed, reasonOf(err))
	var refused *temporal.ApplicationError
	if errors.As(err, &refused) &&
		(refused.Type() == activities.ErrorPermanent || refused.Type() == activities.ErrorForeign) {
		return // concluded by the activity, or not an item of this cascade
	}
	in := activities.AbandonInput{Cascade: c.in.ref(), Item: i.ID, Reason: i.reason}
	// It is retried through an outage, and must not be cancelled with the cascade.
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Abandon, in).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Error("failed to conclude item", "item", i.ID, "error", err)
	}
}

// reasonOf returns the downstream's last answer, without Temporal's wrapping.
func reasonOf(err error) string {
	var application *temporal.ApplicationError
	if errors.As(err, &application) {
		return application.Message()
	}
	var timeout *temporal.TimeoutError
	if errors.As(err, &timeout) {
		return "no attempt finished before the deadline: check that a worker runs for the connector"
	}
	return "cancelled"
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// rated reports whether the connector has a rate limit, which counts its items one by one.
func (c *cascadeRun) rated(connector string) bool {
	return slices.Contains(c.in.RateLimited, connector)
}
