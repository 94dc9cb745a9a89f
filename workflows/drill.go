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

// DrillInput names the tenant that drills are made in. A connector allows them by
// naming it among its tenants.
type DrillInput struct {
	Tenant string `json:"tenant"`
	// Patience is how long the cascade may take.
	Patience time.Duration `json:"patience"`
}

// Drill takes a synthetic person through the whole of it: provisioned, given a real
// credential on each connector that allows it, deactivated, verified. It fails
// where anything was not: the deactivation path is tested where it counts.
func Drill(ctx workflow.Context, in DrillInput) (activities.Drilled, error) {
	name := "leaver-drill-" + strings.ReplaceAll(workflow.GetInfo(ctx).WorkflowExecution.RunID, "-", "")[:12]
	var d activities.Drilled
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.DrillBegin, in.Tenant, name).Get(ctx, &d); err != nil {
		return d, err
	}
	drill(ctx, in, &d)
	// Cleared up and on record, whatever went wrong, and even if it was cancelled.
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	ended := d
	if err := workflow.ExecuteActivity(assuranceActivity(ctx, TaskQueue, drillStep), a.DrillEnd, d).Get(ctx, &ended); err != nil {
		return d, err
	}
	if len(ended.Problems) > 0 {
		return ended, assuranceFailed(ended.Problems, ended)
	}
	return ended, nil
}

// drill issues, deactivates and looks; what goes wrong it notes.
func drill(ctx workflow.Context, in DrillInput, d *activities.Drilled) {
	futures := make([]workflow.Future, len(d.Connectors))
	for n, name := range d.Connectors {
		futures[n] = workflow.ExecuteActivity(assuranceActivity(ctx, connectors.TaskQueue(name), drillStep), a.DrillIssue, activities.DrillInput{Drill: *d, Connector: name})
	}
	for n, f := range futures {
		var issued activities.DrillIssued
		if err := f.Get(ctx, &issued); err != nil {
			d.Problems = append(d.Problems, fmt.Sprintf("%s issued nothing: %s", d.Connectors[n], reasonOf(err)))
			continue
		}
		d.Issued = append(d.Issued, issued)
	}
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.DrillLeave, *d).Get(ctx, &d.Cascade); err != nil || d.Cascade == uuid.Nil {
		d.Problems = append(d.Problems, fmt.Sprintf("the person was not deactivated: %v", err))
		return
	}
	look := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: TaskQueue, ScheduleToCloseTimeout: in.Patience, StartToCloseTimeout: time.Minute,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 1.5, MaximumInterval: 30 * time.Second},
	})
	looked := *d
	if err := workflow.ExecuteActivity(look, a.DrillLook, *d).Get(ctx, &looked); err != nil {
		d.Problems = append(d.Problems, "the cascade did not close in time: "+reasonOf(err))
		return
	}
	*d = looked
}
