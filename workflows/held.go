package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/credential"
)

// SignalApprove wakes up a held cascade after its mass deactivation was approved. Its value is the
// name in the histories of running cascades.
const SignalApprove = "release"

// approvalPoll is the interval at which a held cascade polls for the approval.
const approvalPoll = time.Hour

// heldReason is the reason of an item that is held for approval.
const heldReason = "held for approval by the deactivation threshold: run `leaver hold approve`"

// deferHeld removes the items whose end cannot be undone while the cascade is held:
// rotations, accounts, keys and scheduled runs. It blocks them where the connector can
// do so reversibly. Tokens, grants and sessions end at once: it returns them.
func (c *cascadeRun) deferHeld(ctx workflow.Context, found []*item) (rest []*item) {
	if !c.held {
		return found
	}
	var block []*item
	for _, i := range found {
		if i.Kind.Renewable() && i.Verb != credential.Rotate {
			rest = append(rest, i)
			continue
		}
		c.set(i, credential.Ending, heldReason)
		c.deferred = append(c.deferred, i)
		if i.Verb != credential.Rotate && !i.Blocked {
			block = append(block, i)
		}
	}
	for _, batch := range c.batchesOf(block) {
		c.block(ctx, batch)
	}
	return rest
}

// block starts a background activity that reversibly blocks items at their connector.
func (c *cascadeRun) block(ctx workflow.Context, items []*item) {
	c.batches++
	connector := items[0].Connector
	id := fmt.Sprintf("block:%s:%d", connector, c.batches)
	workflow.Go(ctx, func(ctx workflow.Context) {
		if err := c.reserve(ctx, connector, len(items)); err != nil {
			return
		}
		defer func() { c.open[connector] -= len(items) }()
		options := c.options(ctx, connector)
		options.ActivityID, options.Summary = id, fmt.Sprintf("block %d items at %s", len(items), connector)
		in := activities.BatchInput{Cascade: c.in.ref(), Items: idsOf(items)}
		for c.held {
			err := done(ctx, workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), a.Block, in))
			if err == nil || ctx.Err() != nil {
				return
			}
			workflow.GetLogger(ctx).Error("failed to block items; retrying", "connector", connector, "error", err)
			var failed *temporal.ActivityError
			if !errors.As(err, &failed) && workflow.Sleep(ctx, blockAgain) != nil {
				return
			}
		}
	})
}

// done waits for an activity that returns [activities.Done], which only leaver can seal: another client
// of the namespace could complete the activity without a result. Activities of older runs returned none.
func done(ctx workflow.Context, f workflow.Future) error {
	if workflow.GetVersion(ctx, "done-is-returned", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return f.Get(ctx, nil)
	}
	var result activities.Done
	return f.Get(ctx, &result)
}

// blockAgain is the delay after a result that leaver did not seal.
const blockAgain = time.Minute

// awaitApproval starts the held items once the mass deactivation is approved. The signal
// only wakes it up: it reads the approval from PostgreSQL, so that a signal sent in
// Temporal approves nothing.
func (c *cascadeRun) awaitApproval(ctx workflow.Context) {
	if !c.held {
		return
	}
	workflow.Go(ctx, func(ctx workflow.Context) {
		if c.setState(ctx, "held") != nil {
			return // cancelled
		}
		release := workflow.GetSignalChannel(ctx, SignalApprove)
		for {
			if workflow.ExecuteLocalActivity(localActivity(ctx), a.Held, c.in.ref()).Get(ctx, &c.held) != nil {
				return
			}
			if !c.held {
				break
			}
			release.ReceiveWithTimeout(ctx, approvalPoll, nil)
			if ctx.Err() != nil {
				return
			}
		}
		c.deadline = later(c.deadline, workflow.Now(ctx).Add(c.in.Policy.Deadline))
		if c.setState(ctx, "running") == nil {
			_ = c.beginAll(ctx, c.deferred) // cancelled
		}
		c.deferred = nil // not earlier: a cascade without held items may complete
	})
}

// openState returns the LeaverState of a cascade that does not wait for a downstream.
func (c *cascadeRun) openState() string {
	if c.held {
		return "held"
	}
	return "running"
}

// setState sets LeaverState if it differs.
func (c *cascadeRun) setState(ctx workflow.Context, state string) error {
	if c.state == state {
		return nil
	}
	c.state = state
	return workflow.UpsertTypedSearchAttributes(ctx, SearchState.ValueSet(state))
}
