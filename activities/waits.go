package activities

import (
	"context"

	"github.com/leaverhq/leaver/internal/cascade"
)

// waitsForLimit bounds how many items a cascade tells that it waits for.
const waitsForLimit = 20

// Waiting is an item that a cascade waits for, with its downstream's last answer.
type Waiting = cascade.Waiting

// WaitsFor returns what the cascade is still at and has failed with so far.
func (a *Activities) WaitsFor(ctx context.Context, ref CascadeRef) ([]Waiting, error) {
	waiting, err := a.Cascades.WaitsFor(ctx, ref.Tenant, ref.Event, waitsForLimit)
	if err != nil {
		return nil, err
	}
	for i, w := range waiting {
		if pause, err := a.Pauses.Of(ctx, w.Connector); err != nil {
			return nil, err
		} else if pause != nil {
			waiting[i].Answer = "paused by ops: " + pause.Reason
		}
	}
	return waiting, nil
}

// Held tells whether the brake that holds the cascade back is still held.
func (a *Activities) Held(ctx context.Context, ref CascadeRef) (bool, error) {
	return a.Threshold.Held(ctx, ref.Tenant, ref.Event)
}
