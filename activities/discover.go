package activities

import (
	"context"

	"github.com/leaverhq/leaver/internal/inventory"
)

// DiscoverPage bounds one answer of Discover, in items: it becomes a payload.
const DiscoverPage = 250

// DiscoverInput says where a look goes on.
type DiscoverInput struct {
	Cascade CascadeRef     `json:"cascade"`
	After   inventory.Held `json:"after"` // the last item of the page before; zero begins
	Held    bool           `json:"held,omitempty"`
}

// Discover returns what the principal, and the agents that end with it, still
// hold: scheduled runs first, since they can mint, and one page at most.
func (a *Activities) Discover(ctx context.Context, in DiscoverInput) ([]inventory.Held, error) {
	return a.Inventory.Discover(ctx, in.Cascade.Tenant, in.Cascade.scope(), inventory.Look{After: in.After, Held: in.Held, Limit: DiscoverPage})
}
