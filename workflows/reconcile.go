package workflows

import (
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
)

const (
	// reconcileParallel is the number of tenants that are reconciled concurrently.
	reconcileParallel = 5
	// reconcilePerRun is the number of tenants per run. It bounds the history: the
	// remaining tenants are reconciled after a continue-as-new.
	reconcilePerRun = 20
	// reconcileTimeout bounds one tenant, and reconcileStep one query of a connector.
	reconcileTimeout = 30 * time.Minute
	reconcileStep    = 5 * time.Minute
	// rediscoverPages bounds the pages of principals that a connector is queried for.
	rediscoverPages = 200
	// maxFailingPages bounds the pages of a connector that fail, as all do where it is down.
	maxFailingPages = 10
)

// ReconcileInput is the input of Reconcile: the state of a run that has continued as
// new, or zero for the first one.
type ReconcileInput struct {
	Tenants []uuid.UUID           `json:"tenants,omitempty"` // not reconciled yet
	Found   activities.Reconciled `json:"found"`
	Going   bool                  `json:"going,omitempty"`
}

// Reconcile finds and repairs what SCIM calls, events and cascades have missed, such as
// calls that an IdP lost. It fails if a tenant or connector could not be checked.
func Reconcile(ctx workflow.Context, in ReconcileInput) (activities.Reconciled, error) {
	if !in.Going {
		if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.TenantIDs).Get(ctx, &in.Tenants); err != nil {
			return in.Found, err
		}
	}
	n := min(len(in.Tenants), reconcilePerRun)
	now, later := in.Tenants[:n], in.Tenants[n:]
	slots := workflow.NewSemaphore(ctx, reconcileParallel)
	done := workflow.NewWaitGroup(ctx)
	for _, tenant := range now {
		if err := slots.Acquire(ctx, 1); err != nil {
			return in.Found, err
		}
		done.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer done.Done()
			defer slots.Release(1)
			in.Found.Add(probeExpired(ctx, tenant)) // before ReconcileTenant ends them again
			var found activities.Reconciled
			if err := workflow.ExecuteActivity(
				selfTestActivity(ctx, TaskQueue, reconcileTimeout), a.ReconcileTenant, tenant,
			).Get(ctx, &found); err != nil {
				found.Problems = append(found.Problems, fmt.Sprintf("tenant %s: %s", tenant, reasonOf(err)))
			}
			in.Found.Add(found)
			in.Found.Add(rediscover(ctx, tenant))
			in.Found.Add(unblockLeft(ctx, tenant))
		})
	}
	done.Wait(ctx)
	if len(later) > 0 {
		return in.Found, workflow.NewContinueAsNewError(ctx, Reconcile, ReconcileInput{
			Tenants: later, Found: in.Found, Going: true,
		})
	}
	var found activities.Reconciled
	if err := workflow.ExecuteLocalActivity(
		localActivity(ctx), a.RecordReconciled, in.Found,
	).Get(ctx, &found); err != nil {
		return in.Found, err
	}
	if len(found.Problems) > 0 {
		return found, selfTestFailed(found.Problems, found)
	}
	return found, nil
}

// rediscover queries the tenant's connectors for credentials of principals that left
// recently. Each query runs on its connector's queue and counts against its rate limit.
func rediscover(ctx workflow.Context, tenant uuid.UUID) (found activities.Reconciled) {
	var names []string
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.DiscoverersOf, tenant).Get(ctx, &names); err != nil {
		found.Problem("tenant %s: %s", tenant, reasonOf(err))
	}
	for _, name := range names {
		in := activities.PageInput{Tenant: tenant, Connector: name}
		for range rediscoverPages {
			var page activities.FoundGone
			err := workflow.ExecuteActivity(
				selfTestActivity(ctx, connectors.TaskQueue(name), reconcileStep), a.FindGone, in,
			).Get(ctx, &page)
			if err != nil && !activities.IsPaused(err) {
				found.Problem("failed to query connector %s for credentials: %s", name, reasonOf(err))
			}
			found.Unmanaged += page.Unmanaged
			if in.After = page.After; err != nil || in.After == uuid.Nil {
				break
			}
		}
	}
	return found
}

// unblockLeft undoes the blocks that cancelled cascades have left, where the holders are active again, on the queue of
// each connector.
func unblockLeft(ctx workflow.Context, tenant uuid.UUID) (found activities.Reconciled) {
	if workflow.GetVersion(ctx, "reconcile-unblocks", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return found
	}
	var names []string
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.LeftBlockedAt, tenant).Get(ctx, &names); err != nil {
		found.Problem("tenant %s: %s", tenant, reasonOf(err))
	}
	for _, name := range names {
		in, failing := activities.PageInput{Tenant: tenant, Connector: name}, 0
		for range rediscoverPages {
			var page activities.UnblockedLeft
			err := workflow.ExecuteActivity(
				selfTestActivity(ctx, connectors.TaskQueue(name), reconcileStep), a.UnblockLeft, in,
			).Get(ctx, &page)
			if err != nil && !activities.IsPaused(err) {
				found.Problem("failed to unblock accounts at connector %s: %s", name, reasonOf(err))
			}
			if page.Blocked > 0 {
				found.Problem("%d accounts at connector %s stay blocked, although their cascades were cancelled: %s",
					page.Blocked, name, page.Reason)
			}
			found.Unblocked += page.Unblocked
			if page.Blocked > 0 && page.Unblocked == 0 {
				failing++
			}
			if in.After = page.After; err != nil || failing == maxFailingPages || in.After == uuid.Nil {
				break // the next run tries again what fails now
			}
		}
	}
	return found
}

// probeExpired probes survivors whose registered expiry has passed, each on its
// connector's queue.
func probeExpired(ctx workflow.Context, tenant uuid.UUID) (found activities.Reconciled) {
	var names []string
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.ExpiredAt, tenant).Get(ctx, &names); err != nil {
		found.Problem("tenant %s: %s", tenant, reasonOf(err))
	}
	for _, name := range names {
		in := activities.PageInput{Tenant: tenant, Connector: name}
		for range rediscoverPages {
			var probed activities.ProbedExpired
			err := workflow.ExecuteActivity(
				selfTestActivity(ctx, connectors.TaskQueue(name), reconcileStep), a.ProbeExpired, in,
			).Get(ctx, &probed)
			if err != nil && !activities.IsPaused(err) {
				found.Problem("failed to probe expired survivors at connector %s: %s", name, reasonOf(err))
			}
			found.Expired += probed.Expired
			if in.After = probed.After; err != nil || in.After == uuid.Nil {
				break
			}
		}
	}
	return found
}

// selfTestActivity returns a context for the steps of the reconciler and the drill. A
// step is retried until the deadline, and then reported as a problem.
func selfTestActivity(ctx workflow.Context, queue string, deadline time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: queue, ScheduleToCloseTimeout: deadline, StartToCloseTimeout: deadline,
		HeartbeatTimeout: heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute,
		},
	})
}

func selfTestFailed(problems []string, details any) error {
	message := fmt.Sprintf("found %d problems, first: %s", len(problems), problems[0])
	return temporal.NewApplicationErrorWithOptions(message, "SelfTest",
		temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{details}})
}
