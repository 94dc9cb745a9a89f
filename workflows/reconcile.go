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
	// maxPages bounds the pages of principals or items that a connector is queried for.
	maxPages = 200
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

// eachPage runs an activity for each page of the connectors that list names, each on its connector's queue, where it
// counts against the rate limit. add adds a page to found, and returns the last element of the page: zero ends the
// connector. purpose completes "failed to".
func eachPage[P any](
	ctx workflow.Context, tenant uuid.UUID, found *activities.Reconciled, list, read any, purpose string,
	add func(connector string, page P) (after uuid.UUID),
) {
	var names []string
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), list, tenant).Get(ctx, &names); err != nil {
		found.Problem("tenant %s: %s", tenant, reasonOf(err))
	}
	for _, name := range names {
		in := activities.PageInput{Tenant: tenant, Connector: name}
		for range maxPages {
			var page P
			err := workflow.ExecuteActivity(
				selfTestActivity(ctx, connectors.TaskQueue(name), reconcileStep), read, in,
			).Get(ctx, &page)
			if err != nil && !activities.IsPaused(err) {
				found.Problem("failed to %s at connector %s: %s", purpose, name, reasonOf(err))
			}
			if in.After = add(name, page); err != nil || in.After == uuid.Nil {
				break
			}
		}
	}
}

// rediscover queries the tenant's connectors for credentials of principals that left
// recently.
func rediscover(ctx workflow.Context, tenant uuid.UUID) (found activities.Reconciled) {
	eachPage(ctx, tenant, &found, a.DiscoverersOf, a.FindGone, "query for credentials",
		func(_ string, page activities.FoundGone) uuid.UUID {
			found.Unmanaged += page.Unmanaged
			return page.After
		})
	return found
}

// unblockLeft undoes the blocks that cancelled cascades have left, where the holders are active again.
func unblockLeft(ctx workflow.Context, tenant uuid.UUID) (found activities.Reconciled) {
	if workflow.GetVersion(ctx, "reconcile-unblocks", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return found
	}
	failing := make(map[string]int) // pages, by connector
	eachPage(ctx, tenant, &found, a.LeftBlockedAt, a.UnblockLeft, "unblock accounts",
		func(connector string, page activities.UnblockedLeft) uuid.UUID {
			found.Unblocked += page.Unblocked
			if page.Blocked > 0 {
				found.Problem("%d accounts at connector %s stay blocked, although their cascades were cancelled: %s",
					page.Blocked, connector, page.Reason)
			}
			if page.Blocked > 0 && page.Unblocked == 0 {
				failing[connector]++
			}
			if failing[connector] == maxFailingPages {
				return uuid.Nil // the next run tries again
			}
			return page.After
		})
	return found
}

// probeExpired probes survivors whose registered expiry has passed.
func probeExpired(ctx workflow.Context, tenant uuid.UUID) (found activities.Reconciled) {
	eachPage(ctx, tenant, &found, a.ExpiredAt, a.ProbeExpired, "probe expired survivors",
		func(_ string, page activities.ProbedExpired) uuid.UUID {
			found.Expired += page.Expired
			return page.After
		})
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
