package activities

import (
	"context"
	"errors"

	"go.temporal.io/sdk/activity"

	"github.com/leaverhq/leaver/internal/cascade"
)

// ReportInput identifies the cascade to close, and says whether it was interrupted.
type ReportInput struct {
	Cascade     CascadeRef `json:"cascade"`
	Interrupted bool       `json:"interrupted,omitempty"`
	// FinalDiscovery requests another discovery; the event stays open if it finds items.
	FinalDiscovery bool `json:"finalDiscovery,omitempty"`
	// After is the last item of the previous page, if the final discovery has several.
	After cascade.Item `json:"after,omitzero"`
	// Cancelled is true if the workflow was cancelled, by leaver or in Temporal.
	Cancelled bool `json:"cancelled,omitempty"`
	// NotAsked are the connectors that could not be queried for credentials.
	NotAsked []cascade.NotAsked `json:"notAsked,omitempty"`
}

// Reported is the report of a closed cascade, or the items that keep it open.
type Reported struct {
	Report cascade.Report `json:"report"`
	Found  []cascade.Item `json:"found,omitempty"` // not empty: the event is still open
}

// Report closes the cascade's event. It returns the number of items by state, and the
// ids of the survivors.
func (a *Activities) Report(ctx context.Context, in ReportInput) (Reported, error) {
	ref := in.Cascade
	if in.Cancelled {
		report, err := a.reportCancelled(ctx, ref)
		return Reported{Report: report}, err
	}
	if in.FinalDiscovery {
		if found, err := a.Discover(ctx, DiscoverInput{Cascade: ref, After: in.After}); err != nil || len(found) > 0 {
			return Reported{Found: found}, err
		}
	}
	report, err := a.Cascades.Close(ctx, ref.Tenant, ref.Event, ref.kind(), in.Interrupted, in.NotAsked...)
	if err != nil {
		return Reported{}, refusedRun(err)
	}
	activity.GetLogger(ctx).Info("cascade closed", "tenant", ref.Tenant, "cascade", ref.Event,
		"principal", ref.Principal, "outcome", report.Outcome, "verified", report.Verified, "revoked", report.Revoked,
		"absent", report.Absent, "expiring", report.Expiring, "survivors", report.Survivors)
	return Reported{Report: report}, nil
}

// byTemporal is the actor of acts that did not come through leaver, such as a cancellation in
// Temporal's UI.
const byTemporal = "temporal"

// reportCancelled closes the event of a cancelled workflow. If leaver has not closed it
// already, the workflow was cancelled in Temporal.
func (a *Activities) reportCancelled(ctx context.Context, ref CascadeRef) (cascade.Report, error) {
	c, err := a.Cascades.Cancel(ctx, ref.Tenant, ref.Event, byTemporal, "cancelled in Temporal")
	if errors.Is(err, cascade.ErrNotRunning) {
		c, err = a.Cascades.Get(ctx, ref.Tenant, ref.Event)
	}
	if err != nil {
		return cascade.Report{}, err
	}
	return c.Report(), nil
}
