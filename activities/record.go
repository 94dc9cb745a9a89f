package activities

import "context"

// Record closes the event of a workflow that is not a cascade.
func (a *Activities) Record(ctx context.Context, ref CascadeRef) error {
	return refusedRun(a.Cascades.CloseEvent(ctx, ref.Tenant, ref.Event))
}
