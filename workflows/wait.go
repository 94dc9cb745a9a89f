package workflows

import (
	"cmp"
	"fmt"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/cascade"
)

// await blocks until done returns true. Meanwhile it reads the pending items from
// PostgreSQL, as a workflow does not see its activities' retries, and shows them in
// the current details and in LeaverState.
func (c *cascadeRun) await(ctx workflow.Context, done func() bool) error {
	interval := c.in.Policy.ProgressInterval
	if interval == 0 {
		return workflow.Await(ctx, done)
	}
	for {
		ok, err := workflow.AwaitWithTimeout(ctx, interval, done)
		if err != nil {
			return err
		}
		if ok {
			c.waiting = nil
			return c.setState(ctx, c.openState())
		}
		if err := workflow.ExecuteLocalActivity(
			localActivity(ctx), a.WaitsFor, c.in.ref(),
		).Get(ctx, &c.waiting); err != nil {
			return err
		}
		if len(c.waiting) > 0 && !c.held {
			if err := c.setState(ctx, "waiting"); err != nil {
				return err
			}
		}
		c.show(ctx)
		interval = min(2*interval, maxProgressInterval)
	}
}

// askDownstreams queries each connector that can list credentials for those of the
// leaver. The activities store them in PostgreSQL, where the next discovery finds them.
func (c *cascadeRun) askDownstreams(ctx workflow.Context) {
	if c.in.Moves {
		return // an unregistered credential was granted under no entitlement
	}
	for _, name := range c.in.Discover {
		c.finding++
		options := c.options(ctx, name)
		options.ActivityID, options.Summary = "find:"+name, fmt.Sprintf("list the leaver's credentials at %s", name)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer func() { c.finding--; c.answered = true }()
			for {
				in := activities.FindInput{Cascade: c.in.ref(), Connector: name}
				var found activities.Findings // decoded, so that only leaver can have completed the activity
				err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), a.Find, in).Get(ctx, &found)
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

// priority returns the priority of the workflow's activities: leavers first, and
// Temporal alternates between fairness keys, so that a mass deactivation of ten
// thousand does not delay the single leaver of another key.
func (in Input) priority() temporal.Priority {
	if in.Moves {
		return temporal.Priority{PriorityKey: moverPriority, FairnessKey: cmp.Or(in.Fairness, in.Tenant.String())}
	}
	return temporal.Priority{PriorityKey: leaverPriority, FairnessKey: cmp.Or(in.Fairness, in.Tenant.String())}
}

// leaverPriority puts leavers before everything else on a queue (1 is first).
const leaverPriority = 1

// moverPriority puts movers after leavers.
const moverPriority = 2
