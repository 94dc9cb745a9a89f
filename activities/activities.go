// Package activities holds the steps of the workflows: one file a verb. Each
// can run twice (I5), and each error it returns says whether to try again.
package activities

import (
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/brake"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/inventory"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// Activities are registered with the workers. A nil pointer gives workflows
// typed references to the methods.
type Activities struct {
	Inventory  *inventory.Store
	Evidence   *evidence.Store
	Cascades   *lifecycle.Cascades
	Connectors connectors.Registry
	Pauses     *brake.Pauses
	Brakes     *brake.Brakes
}

// CascadeRef names a cascade: ids only, since it travels through Temporal.
type CascadeRef struct {
	Tenant    uuid.UUID `json:"tenant"`
	Event     uuid.UUID `json:"event"`
	Principal uuid.UUID `json:"principal"`
	Sequence  int64     `json:"sequence"`
}

func (r CascadeRef) scope() inventory.Scope {
	return inventory.Scope{Event: r.Event, Principal: r.Principal, Sequence: r.Sequence}
}
