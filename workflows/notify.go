package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
)

// notice is the content of a notification about an event.
type notice struct {
	kind, outcome string
	entitled      activities.Entitled // what the event's principal gained and lost
	keySuffix     string              // key suffix that distinguishes notifications of the same event
}

func (t notice) notification(in Input) connectors.Notification {
	n := connectors.Notification{
		Type: t.kind, Tenant: in.Tenant, Event: in.Event, Principal: in.Principal, Resource: in.PrincipalType,
		Changed: in.Changed, Outcome: t.outcome,
	}
	if e := t.entitled; len(e.Gained)+len(e.Lost) > 0 {
		n.Entitlements = []connectors.EntitlementChange{{Principal: in.Principal, Gained: e.Gained, Lost: e.Lost}}
	}
	return n
}

// notify notifies each connector in in.Notify at least once. A failure is only
// logged, since it does not change the outcome of the event.
func notify(ctx workflow.Context, in Input, t notice, deadline time.Duration) {
	futures := make([]workflow.Future, 0, len(in.Notify))
	for _, name := range in.Notify {
		options := notifyOptions(name, deadline)
		options.ActivityID, options.Summary = "notify:"+name+t.keySuffix, fmt.Sprintf("notify %s of %s", name, t.kind)
		ctx := workflow.WithActivityOptions(ctx, options)
		key := in.Event.String() + "/" + workflow.GetInfo(ctx).WorkflowExecution.RunID + t.keySuffix
		futures = append(futures, workflow.ExecuteActivity(ctx, a.Notify, activities.NotifyInput{
			Connector: name, Key: key, Notification: t.notification(in),
		}))
	}
	for i, f := range futures {
		if err := done(ctx, f); err != nil {
			workflow.GetLogger(ctx).Error("failed to notify platform", "connector", in.Notify[i], "error", err)
		}
	}
}

// notifyOptions returns options that retry a notification until the deadline.
func notifyOptions(connector string, deadline time.Duration) workflow.ActivityOptions {
	return workflow.ActivityOptions{
		TaskQueue: connectors.TaskQueue(connector), ScheduleToCloseTimeout: deadline, StartToCloseTimeout: time.Minute,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 10 * time.Minute,
		},
	}
}

// recordAndNotify notifies the platforms of an event that ends no credentials, and closes it.
func recordAndNotify(ctx workflow.Context, in Input, t notice) error {
	notify(ctx, in, t, notifyDeadline)
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Record, in.ref()).Get(ctx, nil); err != nil {
		return err
	}
	return workflow.UpsertTypedSearchAttributes(ctx, SearchState.ValueSet("completed"))
}
