package workflows

import (
	"slices"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/entitlement"
)

// TeamSync runs when a group's members or name change, when it is deleted, and when
// the tenant's rules change: whoever is concerned has entitlements derived anew, page
// by page, and the platforms are told. Each who lost something that has to be ended
// is a mover of its own.
func TeamSync(ctx workflow.Context, in Input) error {
	if workflow.GetVersion(ctx, "entitle", workflow.DefaultVersion, 1) != workflow.DefaultVersion {
		if err := sync(ctx, in); err != nil {
			return err
		}
		if err := tellMoves(ctx, in); err != nil {
			return err
		}
	}
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
		ScheduleToCloseTimeout: outageTimeout, StartToCloseTimeout: syncTimeout, HeartbeatTimeout: heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute},
	})
	next := activities.SyncInput{
		Cascade: in.ref(), Tenant: in.tenantWide(), Whole: !slices.Equal(in.Changed, []string{"members"}), After: in.After,
	}
	for done := in.Synced; !done; done = next.After == uuid.Nil {
		if workflow.GetInfo(ctx).GetCurrentHistoryLength() > maxSyncEvents {
			in.After = next.After
			return workflow.NewContinueAsNewError(ctx, TeamSync, in)
		}
		var synced activities.Synced
		if err := workflow.ExecuteActivity(ctx, a.Sync, next).Get(ctx, &synced); err != nil {
			return err
		}
		next.After = synced.After
	}
	return nil
}

// tellMoves tells the platforms who gained and lost what.
func tellMoves(ctx workflow.Context, in Input) error {
	if len(in.Notify) == 0 {
		return nil
	}
	after := uuid.Nil
	if in.Synced {
		after = in.After
	}
	for {
		var moves []entitlement.Change
		if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.Moves, activities.MovesInput{Cascade: in.ref(), After: after}).Get(ctx, &moves); err != nil {
			return err
		}
		if len(moves) == 0 {
			return nil
		}
		after = moves[len(moves)-1].Principal
		notify(ctx, in, told{kind: "entitlements.changed", page: after.String(), changes: moves}, notifyDeadline)
		if len(moves) < activities.MovesPage {
			return nil
		}
		if workflow.GetInfo(ctx).GetCurrentHistoryLength() > maxSyncEvents {
			in.Synced, in.After = true, after
			return workflow.NewContinueAsNewError(ctx, TeamSync, in)
		}
	}
}
