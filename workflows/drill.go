package workflows

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
)

// drillStep bounds one step of a drill.
const drillStep = 5 * time.Minute

// DrillInput is the input of Drill. Tenant is the name of the drill tenant: a connector
// takes part in drills if its tenants include it.
type DrillInput struct {
	Tenant string `json:"tenant"`
	// Timeout bounds the duration of the cascade. The tag is the name in the stored schedule.
	Timeout time.Duration `json:"patience"`
}

// Drill tests the deactivation path in production: it provisions a synthetic user,
// issues a real credential at each connector that takes part, deactivates the user, and
// checks that the cascade verified each credential. It fails if any step failed.
func Drill(ctx workflow.Context, in DrillInput) (activities.Drilled, error) {
	name := "leaver-drill-" + strings.ReplaceAll(workflow.GetInfo(ctx).WorkflowExecution.RunID, "-", "")[:12]
	var d activities.Drilled
	if err := workflow.ExecuteLocalActivity(
		localActivity(ctx), a.DrillBegin, in.Tenant, name,
	).Get(ctx, &d); err != nil {
		return d, err
	}
	drill(ctx, in, &d)
	// Clean up and record the result even if the drill failed or was cancelled.
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	ended := d
	if err := workflow.ExecuteActivity(
		selfTestActivity(ctx, TaskQueue, drillStep), a.DrillEnd, d,
	).Get(ctx, &ended); err != nil {
		return d, err
	}
	if len(ended.Problems) > 0 {
		return ended, selfTestFailed(ended.Problems, ended)
	}
	return ended, nil
}

// drill issues the credentials, deactivates the user and waits for the cascade. It adds
// failures to d.Problems.
func drill(ctx workflow.Context, in DrillInput, d *activities.Drilled) {
	futures := make([]workflow.Future, len(d.Connectors))
	for n, name := range d.Connectors {
		ctx := selfTestActivity(ctx, connectors.TaskQueue(name), drillStep)
		futures[n] = workflow.ExecuteActivity(ctx, a.DrillIssue, activities.DrillInput{Drill: *d, Connector: name})
	}
	for n, f := range futures {
		var issued activities.DrillIssued
		if err := f.Get(ctx, &issued); err != nil {
			d.Problems = append(d.Problems, fmt.Sprintf(
				"connector %s failed to issue a credential: %s", d.Connectors[n], reasonOf(err),
			))
			continue
		}
		d.Issued = append(d.Issued, issued)
	}
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.DrillLeave, *d).Get(ctx, &d.Cascade); err != nil ||
		d.Cascade == uuid.Nil {
		d.Problems = append(d.Problems, fmt.Sprintf("failed to deactivate the synthetic user: %v", err))
		return
	}
	polling := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: TaskQueue, ScheduleToCloseTimeout: in.Timeout, StartToCloseTimeout: time.Minute,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 1.5, MaximumInterval: 30 * time.Second,
		},
	})
	ended := *d
	if err := workflow.ExecuteActivity(polling, a.DrillLook, *d).Get(ctx, &ended); err != nil {
		d.Problems = append(d.Problems, "the cascade did not close within "+in.Timeout.String()+": "+reasonOf(err))
		return
	}
	*d = ended
}
