package workflows

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/inventory"
)

// item is one credential or scheduled run that this run of the cascade is at.
type item struct {
	inventory.Held
	state  inventory.State
	reason string
	round  int // how often it was begun with; more than once by Update retry
	again  bool
	cancel workflow.CancelFunc
}

// begin ends the item in a coroutine of its own.
func (c *cascade) begin(ctx workflow.Context, i *item) {
	c.set(i, inventory.Ending, "")
	c.count(i, 1)
	c.show(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			result, err := c.end(ctx, i)
			if err != nil && i.again && ctx.Err() == nil {
				continue
			}
			c.settleItem(ctx, i, result, err)
			break
		}
		c.count(i, -1)
		c.show(ctx)
	})
}

func (c *cascade) set(i *item, state inventory.State, reason string) {
	if i.state != "" {
		c.counts[i.state]--
	}
	i.state, i.reason = state, reason
	c.counts[state]++
}

func (c *cascade) count(i *item, by int) {
	c.inFlight += by
	if i.Kind == inventory.ScheduledRun {
		c.runs += by
	}
}

// end runs the item's activity until it succeeds, is refused for good, or the
// deadline passes; or until somebody asks to try again now.
func (c *cascade) end(ctx workflow.Context, i *item) (activities.ItemResult, error) {
	i.again = false
	i.round++
	if err := workflow.Await(ctx, func() bool { return c.open[i.Connector] < c.in.Policy.Window }); err != nil {
		return activities.ItemResult{}, err
	}
	c.open[i.Connector]++
	defer func() { c.open[i.Connector]-- }()
	name, verb := i.verb()
	id := fmt.Sprintf("%s:%s:%s", name, i.Connector, i.ID)
	if i.round > 1 {
		id = fmt.Sprintf("%s#%d", id, i.round)
	}
	left := c.in.Deadline.Sub(workflow.Now(ctx))
	ctx, i.cancel = workflow.WithCancel(workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ActivityID:             id,
		TaskQueue:              connectors.TaskQueue(i.Connector),
		ScheduleToCloseTimeout: max(left, c.in.Policy.AttemptTimeout),
		StartToCloseTimeout:    c.in.Policy.AttemptTimeout,
		HeartbeatTimeout:       heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: c.in.Policy.InitialInterval, BackoffCoefficient: 2, MaximumInterval: c.in.Policy.MaximumInterval,
		},
		Summary:  fmt.Sprintf("%s %s at %s", name, i.Kind, i.Connector),
		Priority: temporal.Priority{PriorityKey: leaverPriority},
	}))
	var result activities.ItemResult
	err := workflow.ExecuteActivity(ctx, verb, activities.ItemInput{Cascade: c.in.ref(), Item: i.ID}).Get(ctx, &result)
	return result, err
}

// leaverPriority puts leavers before everything else on a queue (1 is first).
const leaverPriority = 1

type activityMethod = func(context.Context, activities.ItemInput) (activities.ItemResult, error)

// verb chooses by kind: what others rely on too is rotated, not revoked.
func (i *item) verb() (string, activityMethod) {
	switch {
	case i.Kind == inventory.ScheduledRun:
		return "cancel", a.Cancel
	case i.Shared:
		return "rotate", a.Rotate
	}
	return "revoke", a.Revoke
}

// settleItem notes how the item ended. One that ran out of time was not
// concluded by its activity, and is abandoned here.
func (c *cascade) settleItem(ctx workflow.Context, i *item, result activities.ItemResult, err error) {
	if err == nil {
		c.set(i, result.State, result.Detail)
		return
	}
	c.set(i, inventory.Survivor, reasonOf(err))
	var refused *temporal.ApplicationError
	if errors.As(err, &refused) && refused.Type() == activities.ErrorPermanent {
		return
	}
	in := activities.AbandonInput{Cascade: c.in.ref(), Item: i.ID, Reason: i.reason}
	// Its own retries outlast an outage, and it outlasts a cancellation.
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Abandon, in).Get(ctx, nil); err != nil {
		workflow.GetLogger(ctx).Error("item not concluded", "item", i.ID, "error", err)
	}
}

// reasonOf is the downstream's last answer, without Temporal's wrapping.
func reasonOf(err error) string {
	var application *temporal.ApplicationError
	if errors.As(err, &application) {
		return application.Message()
	}
	var timeout *temporal.TimeoutError
	if errors.As(err, &timeout) {
		return "no attempt finished before the deadline: is a worker running for its connector?"
	}
	return "cancelled"
}

// RetryRequest asks to try one item again now, or all that wait or failed.
type RetryRequest struct {
	Item uuid.UUID `json:"item,omitzero"`
}

// RetryResponse says how many items are tried again.
type RetryResponse struct {
	Retried int `json:"retried"`
}

// validateRetry refuses what cannot be retried, so that it leaves no event.
func (c *cascade) validateRetry(_ workflow.Context, r RetryRequest) error {
	if c.phase != "ending" {
		return fmt.Errorf("the cascade is %s: re-run it once it is closed", c.phase)
	}
	if r.Item == uuid.Nil {
		return nil
	}
	i := c.items[r.Item.String()]
	switch {
	case i == nil:
		return fmt.Errorf("this run of the cascade has no item %s", r.Item)
	case i.state != inventory.Ending && i.state != inventory.Survivor:
		return fmt.Errorf("item %s is %s", r.Item, i.state)
	}
	return nil
}

func (c *cascade) retry(ctx workflow.Context, r RetryRequest) (RetryResponse, error) {
	var response RetryResponse
	for _, i := range c.order {
		if r.Item != uuid.Nil && i.ID != r.Item {
			continue
		}
		switch i.state {
		case inventory.Ending:
			if i.cancel == nil {
				continue // it waits for its turn
			}
			i.again = true
			i.cancel()
			response.Retried++
		case inventory.Survivor:
			c.in.Deadline = later(c.in.Deadline, workflow.Now(ctx).Add(c.in.Policy.AttemptTimeout))
			c.begin(ctx, i)
			response.Retried++
		default:
		}
	}
	return response, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
