package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/inventory"
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
func (c *cascade) holdBack(ctx workflow.Context, found []*item) (rest []*item) {
	if !c.held {
		return found
	}
	var block []*item
	for _, i := range found {
		if i.Kind.Renewable() && !i.Shared {
			rest = append(rest, i)
			continue
		}
		c.set(i, inventory.Ending, heldReason)
		c.holding = append(c.holding, i)
		if !i.Shared && !i.Blocked {
			block = append(block, i)
		}
	}
	for _, batch := range c.batchesOf(block) {
		c.block(ctx, batch)
	}
	return rest
}

// block asks a connector to keep items from being used, in the background.
func (c *cascade) block(ctx workflow.Context, items []*item) {
	c.inFlight++
	c.batches++
	connector := items[0].Connector
	id := fmt.Sprintf("block:%s:%d", connector, c.batches)
	workflow.Go(ctx, func(ctx workflow.Context) {
		defer func() { c.inFlight-- }()
		if err := c.reserve(ctx, connector, len(items)); err != nil {
			return
		}
		defer func() { c.open[connector] -= len(items) }()
		options := c.options(ctx, connector)
		options.ActivityID, options.Summary = id, fmt.Sprintf("block %d items at %s", len(items), connector)
		in := activities.BatchInput{Cascade: c.in.ref(), Items: idsOf(items)}
		if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), a.Block, in).Get(ctx, nil); err != nil {
			workflow.GetLogger(ctx).Error("items not blocked", "connector", connector, "error", err)
		}
	})
}

// awaitRelease waits for an approver, and begins with what was held back.
func (c *cascade) awaitRelease(ctx workflow.Context) error {
	c.phase = "held"
	c.show(ctx)
	if err := c.tell(ctx, "held"); err != nil {
		return err
	}
	release := workflow.GetSignalChannel(ctx, SignalRelease)
	for c.held {
		if ok, _ := release.ReceiveWithTimeout(ctx, releasePoll, nil); ok {
			c.held = false
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Held, c.in.ref()).Get(ctx, &c.held); err != nil {
			return err
		}
	}
	c.phase = "ending"
	c.deadline = later(c.deadline, workflow.Now(ctx).Add(c.in.Policy.Deadline))
	if err := c.tell(ctx, "running"); err != nil {
		return err
	}
	held := c.holding
	c.holding = nil
	return c.beginAll(ctx, held)
}

// tell sets LeaverState, where it is another.
func (c *cascade) tell(ctx workflow.Context, state string) error {
	if c.state == state {
		return nil
	}
	c.state = state
	return workflow.UpsertTypedSearchAttributes(ctx, SearchState.ValueSet(state))
}
