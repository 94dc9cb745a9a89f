package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/entitlement"
	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/registry"
)

const (
	// reconcileActor is the actor of the reconciler in the audit log.
	reconcileActor = "reconciler"
	// reconcileLimit bounds the principals that one run starts cascades for in a tenant: the
	// next run starts the rest. It is also the page size for open cascades.
	reconcileLimit = 500
	// discoverPage is the number of principals per query of a connector.
	discoverPage = 100
	// goneLately is how long connectors are queried for a principal that has left.
	goneLately = 30 * 24 * time.Hour
	// settled is the age below which a cascade may have no workflow yet.
	settled = 5 * time.Minute
)

// Reconciled counts what the reconciler found in one tenant or in all.
type Reconciled struct {
	Waivers   int      `json:"waiversEnded"`
	Expired   int      `json:"survivorsExpired"`
	Restarted int      `json:"cascadesRestarted"` // whose workflow was gone
	Ended     int      `json:"principalsEndedAgain"`
	Unblocked int      `json:"unblocked"` // which cancelled cascades had left blocked
	Unmanaged int      `json:"unmanaged"`
	Unstarted int64    `json:"eventsUnstarted"`
	Problems  []string `json:"problems,omitempty"`
}

// maxProblems bounds the problems of a result.
const maxProblems = 20

// Add adds the counts and problems of o.
func (r *Reconciled) Add(o Reconciled) {
	r.Waivers, r.Expired, r.Restarted = r.Waivers+o.Waivers, r.Expired+o.Expired, r.Restarted+o.Restarted
	r.Ended, r.Unblocked, r.Unmanaged = r.Ended+o.Ended, r.Unblocked+o.Unblocked, r.Unmanaged+o.Unmanaged
	for _, p := range o.Problems {
		r.Problem("%s", p)
	}
}

// Problem adds a problem, unless there are [maxProblems] already.
func (r *Reconciled) Problem(format string, args ...any) {
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

// ReconcileTenant finds what events and cascades have missed in one tenant, and starts
// cascades for it.
func (a *Activities) ReconcileTenant(ctx context.Context, tenant uuid.UUID) (Reconciled, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	var r Reconciled
	var err error
	if r.Waivers, err = a.Cascades.Lapse(ctx, tenant); err != nil {
		return r, err
	}
	if err := a.restart(ctx, tenant, &r); err != nil {
		return r, err
	}
	if err := a.reevaluate(ctx, tenant); err != nil {
		return r, err
	}
	overlooked, err := a.Cascades.Overlooked(ctx, tenant, reconcileLimit)
	if err != nil {
		return r, err
	}
	for _, principal := range overlooked {
		_, err := a.Lifecycle.EndAgain(ctx, tenant, principal, lifecycle.Cause{
			Trigger: lifecycle.TriggerReconcile, Actor: reconcileActor,
		})
		switch {
		case errors.Is(err, lifecycle.ErrNotRestricted): // reactivated meanwhile
		case err != nil:
			return r, err
		default:
			r.Ended++
		}
	}
	if err := a.Credentials.FinishStalled(ctx, tenant); err != nil {
		r.Problem("failed to finish the rotations of tenant %s: %v", tenant, err)
	}
	return r, nil
}

// reevaluate evaluates the principals that hold a live credential under an entitlement
// that they no longer have: each becomes a mover.
func (a *Activities) reevaluate(ctx context.Context, tenant uuid.UUID) error {
	for after := uuid.Nil; ; {
		principals, err := a.Entitlements.Unentitled(ctx, tenant, after, entitlement.MaxBatch)
		if err != nil || len(principals) == 0 {
			return err
		}
		if _, err := a.Entitlements.Evaluate(ctx, tenant, principals, entitlement.Cause{}); err != nil {
			return err
		}
		after = principals[len(principals)-1]
	}
}

// restart re-runs open cascades whose workflow no longer exists.
func (a *Activities) restart(ctx context.Context, tenant uuid.UUID, r *Reconciled) error {
	for after := int64(0); ; {
		open, err := a.Cascades.Open(ctx, tenant, time.Now().Add(-settled), after, reconcileLimit)
		if err != nil {
			return err
		}
		for _, c := range open {
			if err := a.restartOne(ctx, tenant, c, r); err != nil {
				return err
			}
			after = c.Sequence
		}
		if len(open) < reconcileLimit {
			return nil
		}
	}
}

func (a *Activities) restartOne(ctx context.Context, tenant uuid.UUID, c cascade.Cascade, r *Reconciled) error {
	run := ""
	if c.RunID != nil {
		run = *c.RunID
	}
	status, err := a.Runner.Status(ctx, c.WorkflowID, run)
	if err != nil || status == cascade.WorkflowRunning {
		return err
	}
	if cancelled, err := a.cancelStopped(ctx, tenant, c, status); err != nil || cancelled {
		return err
	}
	why, start := "its workflow was gone", a.Runner.Restart
	if status == cascade.WorkflowForeign {
		why, start = "another client of the namespace had taken its workflow ID", a.Runner.Replace
		r.Problem("cascade %s: %s", c.ID, why)
	}
	event, err := a.Cascades.Restart(ctx, tenant, c.ID, reconcileActor, why)
	if err == nil {
		run, err = start(ctx, event)
	}
	if err == nil { // the run is leaver's from now on, not only when a worker takes it up
		err = a.Cascades.Running(ctx, tenant, c.ID, event.Kind, run)
	}
	switch {
	case errors.Is(err, cascade.ErrNotFailed): // it has closed, or runs again
	case err != nil:
		r.Problem("cascade %s was not run again: %v", c.ID, err)
	default:
		r.Restarted++
	}
	return nil
}

// cancelStopped cancels a cascade whose workflow was terminated in Temporal, or whose
// principal is active again, and reports whether it did. The reconciler must not end
// credentials of an active principal.
func (a *Activities) cancelStopped(
	ctx context.Context, tenant uuid.UUID, c cascade.Cascade, status cascade.WorkflowStatus,
) (bool, error) {
	if c.Kind != lifecycle.Leaver && c.Kind != lifecycle.Mover {
		return false, nil
	}
	actor, reason := byTemporal, "terminated in Temporal"
	if status != cascade.WorkflowStopped {
		restricted, err := a.Cascades.Restricted(ctx, tenant, c.Principal)
		if err != nil || restricted || c.Kind != lifecycle.Leaver {
			return false, err
		}
		actor, reason = reconcileActor, "the workflow no longer exists, and the principal is active again"
	}
	_, err := a.Cascades.Cancel(ctx, tenant, c.ID, actor, reason)
	if errors.Is(err, cascade.ErrNotFound) { // a mover that ends nothing
		return false, nil
	}
	if errors.Is(err, cascade.ErrNotRunning) {
		err = nil
	}
	return true, err
}

// DiscoverersOf returns the names of the connectors that can list the credentials of a
// tenant's principals.
func (a *Activities) DiscoverersOf(ctx context.Context, tenant uuid.UUID) ([]string, error) {
	t, err := a.Tenants.ByID(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return a.Connectors.Discoverers(t.Name), nil
}

// PageInput is a connector, and the last principal or item of the previous page.
type PageInput struct {
	Tenant    uuid.UUID `json:"tenant"`
	Connector string    `json:"connector"`
	After     uuid.UUID `json:"after"`
}

// FoundGone counts the credentials that the connector has listed for a page of
// principals. After is the last of them, or zero if there are no more.
type FoundGone struct {
	Findings
	After uuid.UUID `json:"after,omitzero"`
}

// FindGone queries a connector for a page of principals that left in the last
// [goneLately]. A page for a rate-limited connector is one principal, since the limit
// counts activities.
func (a *Activities) FindGone(ctx context.Context, in PageInput) (FoundGone, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	page := discoverPage
	if a.Connectors[in.Connector].Rate > 0 {
		page = 1
	}
	gone, err := a.Cascades.Gone(ctx, in.Tenant, in.After, goneLately, page)
	if err != nil || len(gone) == 0 {
		return FoundGone{}, err
	}
	findings, err := a.find(ctx, in.Tenant, CascadeRef{}, in.Connector, gone)
	found := FoundGone{Findings: findings}
	if len(gone) == page {
		found.After = gone[len(gone)-1]
	}
	return found, err
}

// ExpiredAt returns the names of the connectors with survivors whose expiry has passed.
func (a *Activities) ExpiredAt(ctx context.Context, tenant uuid.UUID) ([]string, error) {
	return a.Credentials.ExpiredAt(ctx, tenant)
}

// ProbedExpired counts the expired items of a page. After is the last item of the page,
// or zero if there are no more.
type ProbedExpired struct {
	Expired int       `json:"expired"`
	After   uuid.UUID `json:"after,omitzero"`
}

// ProbeExpired probes a page of a connector's items whose registered expiry has passed:
// survivors, and items in state expiring. The expiry alone proves nothing: an item that
// is alive becomes a survivor.
func (a *Activities) ProbeExpired(ctx context.Context, in PageInput) (ProbedExpired, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	if err := a.checkPaused(ctx, in.Connector); err != nil {
		return ProbedExpired{}, err
	}
	entry := a.Connectors[in.Connector]
	verifier, ok := connectors.As[connectors.Verifier](entry.Connector)
	if !ok {
		return ProbedExpired{}, nil // without a probe the items stay survivors
	}
	page := discoverPage
	if entry.Rate > 0 {
		page = 1
	}
	items, err := a.Credentials.Expired(ctx, in.Tenant, in.Connector, in.After, page)
	if err != nil {
		return ProbedExpired{}, err
	}
	var probed ProbedExpired
	for _, id := range items {
		dead, err := a.probeExpired(ctx, in.Tenant, id, entry, verifier)
		if err != nil {
			activity.GetLogger(ctx).Warn("failed to probe expired credential; will try again", "item", id, "error", err)
		}
		if dead {
			probed.Expired++
		}
	}
	if len(items) == page {
		probed.After = items[len(items)-1]
	}
	return probed, nil
}

func (a *Activities) probeExpired(
	ctx context.Context, tenant, id uuid.UUID, entry registry.Entry, verifier connectors.Verifier,
) (dead bool, err error) {
	item, err := a.Credentials.Open(ctx, tenant, id)
	if err != nil {
		return false, err
	}
	release, err := entry.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	t := &attempt{Activities: a, in: ItemInput{Cascade: CascadeRef{Tenant: tenant}, Item: id}, item: item}
	switch vitality, _, err := verifier.Probe(ctx, t.targetOf(item)); {
	case err != nil || vitality == connectors.Unknown:
		return false, nil // the next run probes it again
	case vitality == connectors.Alive:
		return false, a.Credentials.Expire(
			ctx, tenant, id, credential.Failed, "its registered expiry has passed, and a probe saw it alive",
		)
	}
	if item.State == credential.Failed {
		// A wrong secret is refused, too: without a positive control, dead proves nothing.
		controlled, err := a.Evidence.SawAlive(ctx, tenant, id, eventOf(item), false)
		if err != nil || !controlled {
			return false, err
		}
	}
	return true, a.Credentials.Expire(
		ctx, tenant, id, credential.Expiring, "its registered expiry has passed, and a probe saw it dead",
	)
}

func eventOf(item *credential.Opened) uuid.UUID {
	if item.Event == nil {
		return uuid.Nil
	}
	return *item.Event
}

// RecordReconciled stores the result of the reconciler, which passed if there are no
// problems.
func (a *Activities) RecordReconciled(ctx context.Context, r Reconciled) (Reconciled, error) {
	h, err := a.Health.Read(ctx)
	if err != nil {
		return r, err
	}
	if r.Unstarted = h.Unstarted; r.Unstarted > 0 {
		r.Problem("%d events have no workflow yet: check that `leaver serve` can reach Temporal", r.Unstarted)
	}
	return r, a.Health.Record(ctx, health.Reconcile, len(r.Problems) == 0, r)
}
