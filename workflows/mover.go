package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/cascade"
)

// Mover runs when a principal's attributes change, or an agent's owners, or when a
// change of a group or of the rules has cost it an entitlement. What was granted
// under what it lost ends, and nothing else: a cascade with a smaller inventory.
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
			return cascade.Report{}, recordAndNotify(ctx, in, c.news(""))
		}
	}
	done := false
	workflow.Go(ctx, func(ctx workflow.Context) {
		c.tellEntitled(ctx)
		done = true
	})
	report, err := c.run(ctx)
	_, _ = workflow.AwaitWithTimeout(ctx, leaverNotifyDeadline, func() bool { return done }) // cancelled: it is over
	return report, err
}

// tellEntitled tells the platforms what the principal gained and lost, before what
// that ends has ended.
func (c *cascadeRun) tellEntitled(ctx workflow.Context) {
	if len(c.entitled.Gained)+len(c.entitled.Lost) == 0 {
		return
	}
	news := c.news("")
	news.again = ":entitled"
	notify(ctx, c.in, news, notifyDeadline)
}

// entitle evaluates what the principal is entitled to now.
func entitle(ctx workflow.Context, in Input) (activities.Entitled, error) {
	var entitled activities.Entitled
	err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Entitle, activities.EntitleInput{Cascade: in.ref(), Ends: in.Moves}).Get(ctx, &entitled)
	return entitled, err
}
