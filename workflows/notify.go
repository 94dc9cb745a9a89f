package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
)

// notify tells every connector that wants to know, at least once. A platform
// that cannot be told changes nothing about what happened: it is logged only.
func notify(ctx workflow.Context, in Input, kind, outcome string, deadline time.Duration) {
	futures := make([]workflow.Future, 0, len(in.Notify))
	for _, name := range in.Notify {
		ctx := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			ActivityID:             "notify:" + name,
			TaskQueue:              connectors.TaskQueue(name),
			ScheduleToCloseTimeout: deadline,
			StartToCloseTimeout:    time.Minute,
			RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 10 * time.Minute},
			Summary:                fmt.Sprintf("tell %s: %s", name, kind),
		})
		n := in.notification(outcome)
		n.Type = kind
		run := workflow.GetInfo(ctx).WorkflowExecution.RunID
		futures = append(futures, workflow.ExecuteActivity(ctx, a.Notify, activities.NotifyInput{
			Connector: name, Key: in.Event.String() + "/" + run, Notification: n,
		}))
	}
	for i, f := range futures {
		if err := f.Get(ctx, nil); err != nil {
			workflow.GetLogger(ctx).Error("not notified", "connector", in.Notify[i], "error", err)
		}
	}
}

// recordAndNotify is all that an event needs which ends nothing.
func recordAndNotify(ctx workflow.Context, in Input, kind string) error {
	notify(ctx, in, kind, "", notifyDeadline)
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Record, in.ref()).Get(ctx, nil); err != nil {
		return err
	}
	return workflow.UpsertTypedSearchAttributes(ctx, SearchState.ValueSet("completed"))
}
