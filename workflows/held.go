package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/credential"
)

// SignalRelease tells a cascade that its tenant's brake was released.
const SignalRelease = "release"

// releasePoll is how often a cascade that is held asks by itself.
const releasePoll = time.Hour

// heldReason is what stands at an item that the brake holds back.
const heldReason = "held by the brake on mass deactivation: `leaver brake release`"

// holdBack takes out what cannot be undone while the brake is held: rotations,
// accounts, keys and scheduled runs. Tokens, grants and sessions end at once, and
// what a connector can block in a way that can be undone, it blocks.
func (c *cascadeRun) holdBack(ctx workflow.Context, found []*item) (rest []*item) {
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
		c.holding = append(c.holding, i)
		if i.Verb != credential.Rotate && !i.Blocked {
			block = append(block, i)
		}
	}
	for _, batch := range c.batchesOf(block) {
		c.block(ctx, batch)
	}
	return rest
}

// block asks a connector to keep items from being used, in the background.
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
			err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), a.Block, in).Get(ctx, nil)
			if err == nil || ctx.Err() != nil {
				return
			}
			workflow.GetLogger(ctx).Error("items not blocked yet", "connector", connector, "error", err)
		}
	})
}

// awaitRelease begins with what is held back once an approver has released the
// brake. The signal wakes it up, no more: whether the brake is held, PostgreSQL
// says, so that nobody releases one from Temporal.
func (c *cascadeRun) awaitRelease(ctx workflow.Context) {
	if !c.held {
		return
	}
	workflow.Go(ctx, func(ctx workflow.Context) {
		if c.tell(ctx, "held") != nil {
			return // cancelled
		}
		release := workflow.GetSignalChannel(ctx, SignalRelease)
		for {
			if workflow.ExecuteLocalActivity(localActivity(ctx), a.Held, c.in.ref()).Get(ctx, &c.held) != nil {
				return
			}
			if !c.held {
				break
			}
			release.ReceiveWithTimeout(ctx, releasePoll, nil)
			if ctx.Err() != nil {
				return
			}
		}
		c.deadline = later(c.deadline, workflow.Now(ctx).Add(c.in.Policy.Deadline))
		if c.tell(ctx, "running") == nil {
			_ = c.beginAll(ctx, c.holding) // cancelled
		}
		c.holding = nil // not before: a cascade that holds nothing may be over
	})
}

// goingOn is the state of a cascade that waits for nothing else.
func (c *cascadeRun) goingOn() string {
	if c.held {
		return "held"
	}
	return "running"
}

// tell sets LeaverState, where it is another.
func (c *cascadeRun) tell(ctx workflow.Context, state string) error {
	if c.state == state {
		return nil
	}
	c.state = state
	return workflow.UpsertTypedSearchAttributes(ctx, SearchState.ValueSet(state))
}
