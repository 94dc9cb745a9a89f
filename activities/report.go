package activities

import (
	"context"

	"github.com/leaverhq/leaver/internal/lifecycle"
)

// ReportInput names the cascade to close, and whether it was interrupted.
type ReportInput struct {
	Cascade     CascadeRef `json:"cascade"`
	Interrupted bool       `json:"interrupted,omitempty"`
}

// Report closes the cascade's event: counts by state, and the survivors by id.
func (a *Activities) Report(ctx context.Context, in ReportInput) (lifecycle.Report, error) {
	return a.Cascades.Close(ctx, in.Cascade.Tenant, in.Cascade.Event, in.Interrupted)
}
