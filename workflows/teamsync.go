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
// the tenant's rules change. It evaluates the entitlements of the affected principals,
// page by page, and notifies the platforms. A principal that lost an entitlement under
// which it holds a credential becomes a mover with a separate workflow.
func TeamSync(ctx workflow.Context, in Input) error {
	if err := sync(ctx, in); err != nil {
		return err
	}
	notifyMoves(ctx, in)
	kind := "group.changed"
	if in.tenantWide() {
		kind = "mapping.changed"
	}
	return recordAndNotify(ctx, in, notice{kind: kind})
}

// tenantWide reports whether the event is a change of the tenant's rules, not of a group.
func (in Input) tenantWide() bool { return in.PrincipalType == "Tenant" }

const (
	// syncTimeout bounds one page of a synchronisation.
	syncTimeout = 5 * time.Minute
	// maxSyncEvents is the history length above which a synchronisation continues as new.
	maxSyncEvents = 5000
)

func sync(ctx workflow.Context, in Input) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: SyncQueue, ScheduleToCloseTimeout: outageTimeout, StartToCloseTimeout: syncTimeout,
		HeartbeatTimeout: heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute,
		},
	})
	next := activities.SyncInput{
		Cascade: in.ref(), Tenant: in.tenantWide(), Whole: !slices.Equal(in.Changed, []string{"members"}),
		After: in.After, Invalidation: in.Invalidation,
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

// notifyMoves notifies the platforms, independently of each other, of the entitlements
// that principals gained and lost. A platform that is down delays no other.
func notifyMoves(ctx workflow.Context, in Input) {
	deadline := workflow.Now(ctx).Add(notifyDeadline)
	notifying := workflow.NewWaitGroup(ctx)
	for _, name := range in.Notify {
		notifying.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer notifying.Done()
			next := activities.MovesInput{
				Connector: name, Key: in.Event.String() + "/" + workflow.GetInfo(ctx).WorkflowExecution.RunID,
				Notification: notice{kind: "entitlements.changed"}.notification(in),
			}
			for {
				options := notifyOptions(name, deadline.Sub(workflow.Now(ctx)))
				options.ActivityID = fmt.Sprintf("tell-moves:%s:%s", name, next.After)
				options.Summary = fmt.Sprintf("notify %s of entitlement changes", name)
				err := workflow.ExecuteActivity(
					workflow.WithActivityOptions(ctx, options), a.NotifyMoves, next,
				).Get(ctx, &next.After)
				if err != nil {
					workflow.GetLogger(ctx).Error(
						"failed to notify platform of entitlement changes", "connector", name, "error", err,
					)
					return
				}
				if next.After == uuid.Nil {
					return
				}
			}
		})
	}
	notifying.Wait(ctx)
}
