package activities

import (
	"context"

	"github.com/google/uuid"
)

// AbandonInput identifies an item whose deadline has passed. Reason is the last answer.
type AbandonInput struct {
	Cascade CascadeRef `json:"cascade"`
	Item    uuid.UUID  `json:"item"`
	Reason  string     `json:"reason"`
}

// Abandon concludes an item as a survivor because the policy's deadline passed.
func (a *Activities) Abandon(ctx context.Context, in AbandonInput) error {
	return a.Credentials.Abandon(ctx, in.Cascade.Tenant, in.Item, in.Cascade.Event, in.Reason)
}
