package activities

import (
	"context"

	"github.com/leaverhq/leaver/internal/cascade"
)

// DiscoverPage bounds one answer of Discover, in items: it becomes a payload.
const DiscoverPage = 250

// DiscoverInput says where a look goes on.
type DiscoverInput struct {
	Cascade CascadeRef   `json:"cascade"`
	After   cascade.Item `json:"after"` // the last item of the page before; zero begins
	Held    bool         `json:"held,omitempty"`
}

// Discover returns what the principal, and the agents that end with it, still
// hold: scheduled runs first, since they can mint, and one page at most.
func (a *Activities) Discover(ctx context.Context, in DiscoverInput) ([]cascade.Item, error) {
	return a.Cascades.MarkEnding(ctx, in.Cascade.Tenant, in.Cascade.scope(), cascade.Page{After: in.After, CheckBlocked: in.Held, Limit: DiscoverPage})
}
