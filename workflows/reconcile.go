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
	// reconcileParallel is how many tenants are looked at a time.
	reconcileParallel = 5
	// reconcilePerRun bounds a history: more tenants continue as new.
	reconcilePerRun = 20
	// reconcileTimeout bounds one tenant, and reconcileStep one question to a connector.
	reconcileTimeout = 30 * time.Minute
	reconcileStep    = 5 * time.Minute
	// rediscoverPages bounds how many pages of people a connector is asked about.
	rediscoverPages = 200
)

// ReconcileInput is where a run of the reconciler goes on; zero begins.
type ReconcileInput struct {
	Tenants []uuid.UUID           `json:"tenants,omitempty"` // still to be looked at
	Found   activities.Reconciled `json:"found"`
	Going   bool                  `json:"going,omitempty"`
}

// Reconcile looks for what calls, events and cascades have missed: IdPs do miss
// calls. It fails where it could not look everywhere.
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
			in.Found.Add(probeExpired(ctx, tenant)) // before they are ended again
			var found activities.Reconciled
			if err := workflow.ExecuteActivity(assuranceActivity(ctx, TaskQueue, reconcileTimeout), a.ReconcileTenant, tenant).Get(ctx, &found); err != nil {
				found.Problems = append(found.Problems, fmt.Sprintf("tenant %s: %s", tenant, reasonOf(err)))
			}
			in.Found.Add(found)
			in.Found.Add(rediscover(ctx, tenant))
		})
	}
	done.Wait(ctx)
	if len(later) > 0 {
		return in.Found, workflow.NewContinueAsNewError(ctx, Reconcile, ReconcileInput{Tenants: later, Found: in.Found, Going: true})
	}
	var found activities.Reconciled
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.RecordReconciled, in.Found).Get(ctx, &found); err != nil {
		return in.Found, err
	}
	if len(found.Problems) > 0 {
		return found, assuranceFailed(found.Problems, found)
	}
	return found, nil
}

// rediscover asks the tenant's connectors, each on its own queue and so within its
// rate, about everybody who has gone lately.
func rediscover(ctx workflow.Context, tenant uuid.UUID) (found activities.Reconciled) {
	var names []string
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.DiscoverersOf, tenant).Get(ctx, &names); err != nil {
		found.Problem("tenant %s: %s", tenant, reasonOf(err))
	}
	for _, name := range names {
		in := activities.FindGoneInput{Tenant: tenant, Connector: name}
		for page := 0; page < rediscoverPages; page++ {
			var told activities.FoundGone
			err := workflow.ExecuteActivity(assuranceActivity(ctx, connectors.TaskQueue(name), reconcileStep), a.FindGone, in).Get(ctx, &told)
			if err != nil && !activities.IsPaused(err) {
				found.Problem("%s was not asked what it holds: %s", name, reasonOf(err))
			}
			found.Unbound += told.Unbound
			if in.After = told.After; err != nil || in.After == uuid.Nil {
				break
			}
		}
	}
	return found
}

// probeExpired has connectors, each on its own queue, look whether survivors have expired.
func probeExpired(ctx workflow.Context, tenant uuid.UUID) (found activities.Reconciled) {
	var names []string
	if err := workflow.ExecuteLocalActivity(localActivity(ctx), a.ExpiredAt, tenant).Get(ctx, &names); err != nil {
		found.Problem("tenant %s: %s", tenant, reasonOf(err))
	}
	for _, name := range names {
		in := activities.FindGoneInput{Tenant: tenant, Connector: name}
		for page := 0; page < rediscoverPages; page++ {
			var probed activities.ProbedExpired
			err := workflow.ExecuteActivity(assuranceActivity(ctx, connectors.TaskQueue(name), reconcileStep), a.ProbeExpired, in).Get(ctx, &probed)
			if err != nil && !activities.IsPaused(err) {
				found.Problem("%s was not asked whether survivors have expired: %s", name, reasonOf(err))
			}
			found.Expired += probed.Expired
			if in.After = probed.After; err != nil || in.After == uuid.Nil {
				break
			}
		}
	}
	return found
}

// assuranceActivity is for steps of the reconciler and the drill: each is tried
// for a while, and then told as a problem.
func assuranceActivity(ctx workflow.Context, queue string, deadline time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: queue, ScheduleToCloseTimeout: deadline, StartToCloseTimeout: deadline, HeartbeatTimeout: heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute},
	})
}

func assuranceFailed(problems []string, details any) error {
	return temporal.NewApplicationErrorWithOptions(fmt.Sprintf("%d problems; the first: %s", len(problems), problems[0]), "Assurance",
		temporal.ApplicationErrorOptions{NonRetryable: true, Details: []any{details}})
}
