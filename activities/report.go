package activities

import (
	"context"
	"errors"

	"github.com/leaverhq/leaver/internal/lifecycle"
)

// ReportInput names the cascade to close, and whether it was interrupted.
type ReportInput struct {
	Cascade     CascadeRef `json:"cascade"`
	Interrupted bool       `json:"interrupted,omitempty"`
	// Cancelled: the workflow was, by leaver or in Temporal.
	Cancelled bool `json:"cancelled,omitempty"`
}

// Report closes the cascade's event: counts by state, and the survivors by id.
func (a *Activities) Report(ctx context.Context, in ReportInput) (lifecycle.Report, error) {
	if in.Cancelled {
		return a.reportCancelled(ctx, in.Cascade)
	}
	report, err := a.Cascades.Close(ctx, in.Cascade.Tenant, in.Cascade.Event, in.Cascade.kind(), in.Interrupted)
	return report, refusedRun(err)
}

// byTemporal is the actor of acts that did not come through leaver, such as a cancellation in
// Temporal's UI.
const byTemporal = "temporal"

// reportCancelled closes the event of a workflow that was cancelled, where leaver has not
// done so before: then it was cancelled in Temporal.
func (a *Activities) reportCancelled(ctx context.Context, ref CascadeRef) (lifecycle.Report, error) {
	cascade, err := a.Cascades.Cancel(ctx, ref.Tenant, ref.Event, byTemporal, "cancelled in Temporal")
	if errors.Is(err, lifecycle.ErrNotRunning) {
		cascade, err = a.Cascades.Get(ctx, ref.Tenant, ref.Event)
	}
	if err != nil {
		return lifecycle.Report{}, err
	}
	return cascade.Report(), nil
}
