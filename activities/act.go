package activities

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Act is a request to a running cascade, with its actor and reason.
type Act struct {
	Cascade CascadeRef `json:"cascade"`
	Verb    string     `json:"verb"`
	Item    uuid.UUID  `json:"item,omitzero"`
	By      string     `json:"by"`
	Reason  string     `json:"reason"`
	Until   time.Time  `json:"until,omitzero"` // of a waiver
}

// RecordAct stores an act in the audit log.
func (a *Activities) RecordAct(ctx context.Context, act Act) error {
	return a.Cascades.RecordAct(ctx, act.Cascade.Tenant, act.Cascade.Event, act.By, act.Verb, act.Reason)
}

// Waive tolerates a survivor until act.Until, and stores the actor and the reason.
func (a *Activities) Waive(ctx context.Context, act Act) error {
	return a.Cascades.Waive(ctx, act.Cascade.Tenant, act.Item, act.Cascade.Event, act.By, act.Reason, act.Until)
}
