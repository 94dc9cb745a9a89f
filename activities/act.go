package activities

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// Act is what somebody asked of a running cascade: who, and why.
type Act struct {
	Cascade CascadeRef `json:"cascade"`
	Verb    string     `json:"verb"`
	Item    uuid.UUID  `json:"item,omitzero"`
	By      string     `json:"by"`
	Reason  string     `json:"reason"`
	Until   time.Time  `json:"until,omitzero"` // of a waiver
}

// RecordAct stores an act.
func (a *Activities) RecordAct(ctx context.Context, act Act) error {
	return a.Cascades.RecordAct(ctx, act.Cascade.Tenant, act.Cascade.Event, act.By, act.Verb, act.Reason)
}

// Waive has a survivor tolerated until a time, and stores who said so and why.
func (a *Activities) Waive(ctx context.Context, act Act) error {
	return a.Cascades.Waive(ctx, act.Cascade.Tenant, act.Item, act.Cascade.Event, act.By, act.Reason, act.Until)
}
