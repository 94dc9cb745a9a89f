package workflows

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
)

// TeamSync runs when a group's members or name change, when it is deleted, and when
// the tenant's rules change: whoever is concerned has entitlements derived anew, page
// by page, and the platforms are told. Each who lost something that has to be ended
// is a mover of its own.
func TeamSync(ctx workflow.Context, in Input) error {
	if err := sync(ctx, in); err != nil {
		return err
	}
	tellMoves(ctx, in)
	kind := "group.changed"
	if in.tenantWide() {
		kind = "mapping.changed"
	}
	return recordAndNotify(ctx, in, told{kind: kind})
}

// tenantWide tells whether the event is of the tenant's rules, and not of a group.
func (in Input) tenantWide() bool { return in.PrincipalType == "Tenant" }

const (
	// syncTimeout bounds one page of a synchronisation.
	syncTimeout = 5 * time.Minute
	// maxSyncEvents is how long a history of pages may grow.
	maxSyncEvents = 5000
)

func sync(ctx workflow.Context, in Input) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: SyncQueue, ScheduleToCloseTimeout: outageTimeout, StartToCloseTimeout: syncTimeout, HeartbeatTimeout: heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute},
	})
	next := activities.SyncInput{
		Cascade: in.ref(), Tenant: in.tenantWide(), Whole: !slices.Equal(in.Changed, []string{"members"}), After: in.After, Invalidation: in.Invalidation,
	}
	for {
		if workflow.GetInfo(ctx).GetCurrentHistoryLength() > maxSyncEvents {
			in.After, in.Invalidation = next.After, next.Invalidation
			return workflow.NewContinueAsNewError(ctx, TeamSync, in)
		}
		var synced activities.Synced
		if err := workflow.ExecuteActivity(ctx, a.Sync, next).Get(ctx, &synced); err != nil {
			return err
		}
		if next.After, next.Invalidation = synced.After, synced.Invalidation; next.After == uuid.Nil {
			return nil
		}
	}
}

// tellMoves has each platform told who gained and lost what, by itself: one that is
// down keeps no other waiting.
func tellMoves(ctx workflow.Context, in Input) {
	deadline := workflow.Now(ctx).Add(notifyDeadline)
	telling := workflow.NewWaitGroup(ctx)
	for _, name := range in.Notify {
		telling.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer telling.Done()
			next := activities.MovesInput{
				Connector: name, Key: in.Event.String() + "/" + workflow.GetInfo(ctx).WorkflowExecution.RunID,
				Notification: told{kind: "entitlements.changed"}.notification(in),
			}
			for {
				options := notifyOptions(name, deadline.Sub(workflow.Now(ctx)))
				options.ActivityID, options.Summary = fmt.Sprintf("tell-moves:%s:%s", name, next.After), fmt.Sprintf("tell %s who gained and lost what", name)
				err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), a.NotifyMoves, next).Get(ctx, &next.After)
				if err != nil {
					workflow.GetLogger(ctx).Error("not told who gained and lost what", "connector", name, "error", err)
					return
				}
				if next.After == uuid.Nil {
					return
				}
			}
		})
	}
	telling.Wait(ctx)
}
