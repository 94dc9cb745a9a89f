package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

	"github.com/leaverhq/leaver/internal/assurance"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

const (
	// reconcileActor is who the reconciler is, on record.
	reconcileActor = "reconciler"
	// reconcileLimit bounds what one run begins again in a tenant: the next finds the rest.
	reconcileLimit = 500
	// discoverPage is how many principals a connector is asked about at a time.
	discoverPage = 100
	// settled is how long a cascade may be between its start and its first step.
	settled = 5 * time.Minute
)

// Reconciled is what the reconciler found in a tenant, or in all.
type Reconciled struct {
	Waivers   int      `json:"waiversEnded"`
	Expired   int      `json:"survivorsExpired"`
	Restarted int      `json:"cascadesRestarted"` // whose workflow was gone
	Ended     int      `json:"principalsEndedAgain"`
	Unbound   int      `json:"unbound"`
	Unstarted int64    `json:"eventsUnstarted"`
	Problems  []string `json:"problems,omitempty"`
}

// maxProblems bounds a result; there is a log.
const maxProblems = 20

// Add sums two findings.
func (r *Reconciled) Add(o Reconciled) {
	r.Waivers, r.Expired, r.Restarted = r.Waivers+o.Waivers, r.Expired+o.Expired, r.Restarted+o.Restarted
	r.Ended, r.Unbound = r.Ended+o.Ended, r.Unbound+o.Unbound
	for _, p := range o.Problems {
		r.problem("%s", p)
	}
}

func (r *Reconciled) problem(format string, args ...any) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// TenantIDs lists all tenants.
func (a *Activities) TenantIDs(ctx context.Context) ([]uuid.UUID, error) {
	tenants, err := a.Tenants.List(ctx)
	if err != nil {
		return nil, err
	}
	ids := make([]uuid.UUID, 0, len(tenants))
	for _, t := range tenants {
		ids = append(ids, t.ID)
	}
	return ids, nil
}

// ReconcileTenant looks in one tenant for what events, cascades and connectors
// have missed, and begins it again. What it cannot do it tells as a problem: one
// connector that is down keeps nothing else from being looked at.
func (a *Activities) ReconcileTenant(ctx context.Context, tenant uuid.UUID) (Reconciled, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	var r Reconciled
	var err error
	if r.Waivers, r.Expired, err = a.Inventory.Lapse(ctx, tenant); err != nil {
		return r, err
	}
	if err := a.restart(ctx, tenant, &r); err != nil {
		return r, err
	}
	if err := a.rediscover(ctx, tenant, &r); err != nil {
		return r, err
	}
	overlooked, err := a.Inventory.Overlooked(ctx, tenant, reconcileLimit)
	if err != nil {
		return r, err
	}
	for _, principal := range overlooked {
		_, err := a.Lifecycle.EndAgain(ctx, tenant, principal, lifecycle.Cause{Trigger: lifecycle.TriggerReconcile, Actor: reconcileActor})
		switch {
		case errors.Is(err, lifecycle.ErrNotRestricted): // back by now
		case err != nil:
			return r, err
		default:
			r.Ended++
		}
	}
	return r, nil
}

// restart runs cascades again whose workflow is gone, such as one that somebody
// terminated in Temporal.
func (a *Activities) restart(ctx context.Context, tenant uuid.UUID, r *Reconciled) error {
	open, err := a.Cascades.Open(ctx, tenant, time.Now().Add(-settled), reconcileLimit)
	if err != nil {
		return err
	}
	for _, cascade := range open {
		alive, err := a.Runner.Alive(ctx, cascade.WorkflowID)
		if err != nil {
			return err
		}
		if alive {
			continue
		}
		event, err := a.Cascades.Reopen(ctx, tenant, cascade.ID, reconcileActor, "its workflow was gone")
		if err == nil {
			_, err = a.Runner.Rerun(ctx, event)
		}
		switch {
		case errors.Is(err, lifecycle.ErrNotFailed): // it has closed, or runs, by now
		case err != nil:
			r.problem("cascade %s was not run again: %v", cascade.ID, err)
		default:
			r.Restarted++
		}
	}
	return nil
}

// rediscover asks the tenant's connectors about everybody who is gone.
func (a *Activities) rediscover(ctx context.Context, tenant uuid.UUID, r *Reconciled) error {
	t, err := a.Tenants.ByID(ctx, tenant)
	if err != nil {
		return err
	}
	discoverers := a.Connectors.Discoverers(t.Name)
	for after := uuid.Nil; len(discoverers) > 0; {
		gone, err := a.Inventory.Gone(ctx, tenant, after, discoverPage)
		if err != nil {
			return err
		}
		for n := 0; len(gone) > 0 && n < len(discoverers); n++ {
			found, err := a.find(ctx, tenant, nil, discoverers[n], gone)
			r.Unbound += found.Unbound
			if err != nil {
				r.problem("%s was not asked what it holds: %v", discoverers[n], err)
				discoverers = append(discoverers[:n:n], discoverers[n+1:]...)
				n--
			}
		}
		if len(gone) < discoverPage {
			return nil
		}
		after = gone[len(gone)-1]
	}
	return nil
}

// RecordReconciled stores how the reconciler ended: passed is without problems, and
// with every due event started.
func (a *Activities) RecordReconciled(ctx context.Context, r Reconciled) (Reconciled, error) {
	health, err := a.Assurances.Health(ctx)
	if err != nil {
		return r, err
	}
	r.Unstarted = health.Unstarted
	return r, a.Assurances.Record(ctx, assurance.Reconcile, len(r.Problems) == 0 && r.Unstarted == 0, r)
}
