package activities

import (
	"context"

	"github.com/leaverhq/leaver/internal/cascade"
)

// waitsForLimit bounds the items that WaitsFor returns.
const waitsForLimit = 20

// Waiting is an item that a cascade waits for, with its downstream's last answer.
type Waiting = cascade.Waiting

// WaitsFor returns the items that the cascade has failed to end so far and still retries.
func (a *Activities) WaitsFor(ctx context.Context, ref CascadeRef) ([]Waiting, error) {
	waiting, err := a.Cascades.WaitsFor(ctx, ref.Tenant, ref.Event, waitsForLimit)
	if err != nil {
		return nil, err
	}
	for i, w := range waiting {
		if pause, err := a.Pauses.Of(ctx, w.Connector); err != nil {
			return nil, err
		} else if pause != nil {
			waiting[i].Answer = "the connector is paused: " + pause.Reason
		}
	}
	return waiting, nil
}

// Held reports whether the cascade is still held for approval.
func (a *Activities) Held(ctx context.Context, ref CascadeRef) (bool, error) {
	return a.Threshold.Held(ctx, ref.Tenant, ref.Event)
}
