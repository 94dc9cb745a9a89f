package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/cascade"
)

// Mover runs when a principal's attributes or an agent's owners change, or when a change
// of a group or of the rules has cost a principal an entitlement. It runs a cascade that
// ends only what was granted under the lost entitlements.
func Mover(ctx workflow.Context, in Input) (cascade.Report, error) {
	in.Moves = true
	c, err := newCascade(ctx, in)
	if err != nil {
		return cascade.Report{}, err
	}
	if in.Continued == nil {
		if c.entitled, err = entitle(ctx, in); err != nil {
			return cascade.Report{}, err
		}
		if !c.entitled.Ends {
			return cascade.Report{}, recordAndNotify(ctx, in, c.notice(""))
		}
	}
	done := false
	workflow.Go(ctx, func(ctx workflow.Context) {
		c.notifyEntitled(ctx)
		done = true
	})
	report, err := c.run(ctx)
	// A cancellation only ends the wait.
	_, _ = workflow.AwaitWithTimeout(ctx, leaverNotifyDeadline, func() bool { return done })
	return report, err
}

// notifyEntitled notifies the platforms of the entitlements that the principal gained and
// lost, without waiting for the end of the credentials granted under them.
func (c *cascadeRun) notifyEntitled(ctx workflow.Context) {
	if len(c.entitled.Gained)+len(c.entitled.Lost) == 0 {
		return
	}
	n := c.notice("")
	n.keySuffix = ":entitled"
	notify(ctx, c.in, n, notifyDeadline)
}

// entitle evaluates and stores the principal's current entitlements.
func entitle(ctx workflow.Context, in Input) (activities.Entitled, error) {
	var entitled activities.Entitled
	input := activities.EntitleInput{Cascade: in.ref(), Ends: in.Moves}
	err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Entitle, input).Get(ctx, &entitled)
	return entitled, err
}
