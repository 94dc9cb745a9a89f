package activities

import (
	"context"

	"github.com/leaverhq/leaver/internal/inventory"
)

// DiscoverPage bounds one answer of Discover, in items: it becomes a payload.
const DiscoverPage = 500

// Discover returns what the principal, and the agents that end with it, still
// hold: scheduled runs first, since they can mint, and one page at most.
func (a *Activities) Discover(ctx context.Context, ref CascadeRef) ([]inventory.Held, error) {
	return a.Inventory.Discover(ctx, ref.Tenant, ref.scope(), DiscoverPage)
}
