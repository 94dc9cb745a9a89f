package activities

import (
	"context"

	"github.com/leaverhq/leaver/internal/cascade"
)

// DiscoverPage is the maximum number of items that Discover returns, which bounds its payload.
const DiscoverPage = 250

// DiscoverInput identifies a cascade and the page to return.
type DiscoverInput struct {
	Cascade CascadeRef   `json:"cascade"`
	After   cascade.Item `json:"after"` // the last item of the previous page; zero for the first page
	Held    bool         `json:"held,omitempty"`
}

// Discover returns a page of the items of the principal and of the agents that end with
// it: scheduled runs first, since they can issue credentials.
func (a *Activities) Discover(ctx context.Context, in DiscoverInput) ([]cascade.Item, error) {
	return a.Cascades.MarkEnding(ctx, in.Cascade.Tenant, in.Cascade.scope(),
		cascade.Page{After: in.After, CheckBlocked: in.Held, Limit: DiscoverPage})
}
