package workflows

import (
	"cmp"
	"fmt"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/cascade"
)

// await waits until done. Where that takes long it tells, in the details and in
// LeaverState, what it waits for: a workflow does not see its activities' retries.
func (c *cascadeRun) await(ctx workflow.Context, done func() bool) error {
	look := c.in.Policy.Look
	if look == 0 {
		return workflow.Await(ctx, done)
	}
	for {
		ok, err := workflow.AwaitWithTimeout(ctx, look, done)
		if err != nil {
			return err
		}
		if ok {
			c.waiting = nil
			return c.tell(ctx, c.goingOn())
		}
		if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.WaitsFor, c.in.ref()).Get(ctx, &c.waiting); err != nil {
			return err
		}
		if len(c.waiting) > 0 && !c.held {
			if err := c.tell(ctx, "waiting"); err != nil {
				return err
			}
		}
		c.show(ctx)
		look = min(2*look, maxLook)
	}
}

// askDownstreams lets each connector that can list find what it holds for the
// leaver. What it finds is in PostgreSQL then, and the next look meets it.
func (c *cascadeRun) askDownstreams(ctx workflow.Context) {
	if c.in.Moves {
		return // what is found unregistered was granted under nothing
	}
	for _, name := range c.in.Discover {
		c.finding++
		options := c.options(ctx, name)
		options.ActivityID, options.Summary = "find:"+name, fmt.Sprintf("ask %s what it holds", name)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer func() { c.finding--; c.told = true }()
			for {
				in := activities.FindInput{Cascade: c.in.ref(), Connector: name}
				err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), a.Find, in).Get(ctx, nil)
				if err != nil && ctx.Err() == nil && c.wasPaused(ctx, err) {
					continue
				}
				if err != nil {
					c.notAsked = append(c.notAsked, cascade.NotAsked{Connector: name, Reason: reasonOf(err)})
				}
				return
			}
		})
	}
}

// priority of what the workflow puts on queues: leavers go first, and among them
// in turns, so that ten thousand at once hold up no other's one.
func (in Input) priority() temporal.Priority {
	if in.Moves {
		return temporal.Priority{PriorityKey: moverPriority, FairnessKey: cmp.Or(in.Fairness, in.Tenant.String())}
	}
	return temporal.Priority{PriorityKey: leaverPriority, FairnessKey: cmp.Or(in.Fairness, in.Tenant.String())}
}

// leaverPriority puts leavers before everything else on a queue (1 is first).
const leaverPriority = 1

// moverPriority lets what a move ends come after what leavers have to lose.
const moverPriority = 2
