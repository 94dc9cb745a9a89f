package activities

import (
	"context"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

	"github.com/leaverhq/leaver/internal/entitlement"
)

// EntitleInput names the event of a principal.
type EntitleInput struct {
	Cascade CascadeRef `json:"cascade"`
	// Ends: the workflow itself ends what was granted under what is lost.
	Ends bool `json:"ends,omitempty"`
}

// Entitled is what an event has changed of what its principal is entitled to.
type Entitled struct {
	Gained []string `json:"gained,omitempty"`
	Lost   []string `json:"lost,omitempty"`
	Ends   bool     `json:"ends,omitempty"` // the event has, or had, something to end
}

// Entitle derives what a principal is entitled to by the tenant's rules, and stores it.
func (a *Activities) Entitle(ctx context.Context, in EntitleInput) (Entitled, error) {
	ref := in.Cascade
	by := entitlement.Cause{Event: ref.Event, Ends: in.Ends}
	if _, err := a.Entitlements.Compute(ctx, ref.Tenant, []uuid.UUID{ref.Principal}, by); err != nil {
		return Entitled{}, err
	}
	// What an earlier attempt has stored counts, too.
	changes, err := a.Entitlements.ChangesBy(ctx, ref.Tenant, ref.Event, uuid.Nil, 1)
	if err != nil {
		return Entitled{}, err
	}
	var e Entitled
	for _, c := range changes {
		e.Gained, e.Lost = c.Gained, c.Lost
	}
	if in.Ends {
		e.Ends, err = a.Entitlements.Ends(ctx, ref.Tenant, ref.Event)
	}
	return e, err
}

// SyncInput names a change of a group, or of a tenant's rules, and where the
// synchronisation goes on.
type SyncInput struct {
	Cascade CascadeRef `json:"cascade"` // whose principal is the group
	// Tenant: everybody is concerned.
	Tenant bool `json:"tenant,omitempty"`
	// Whole: whoever is or was in the group is concerned, and not only who came and went.
	Whole        bool      `json:"whole,omitempty"`
	After        uuid.UUID `json:"after"`
	Invalidation int64     `json:"invalidation,omitempty"` // the newest about everybody, when it began
}

// Synced is how far one step of a synchronisation came.
type Synced struct {
	Principals   int       `json:"principals"`
	Changed      int       `json:"changed"`
	After        uuid.UUID `json:"after"` // zero: nobody is left
	Invalidation int64     `json:"invalidation,omitempty"`
}

// syncPage is how many principals one attempt computes: some seconds of work.
const syncPage = 2000

// Sync has the next page of the concerned computed anew. Each that lost something
// that is to be ended becomes a mover of its own.
func (a *Activities) Sync(ctx context.Context, in SyncInput) (Synced, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	ref := in.Cascade
	derives, err := a.Entitlements.Derives(ctx, ref.Tenant)
	if err != nil || !derives {
		return Synced{}, err
	}
	if in.After == uuid.Nil {
		if in.Invalidation, err = a.Entitlements.NewestInvalidation(ctx, ref.Tenant, ref.Principal); err != nil {
			return Synced{}, err
		}
	}
	var ids []uuid.UUID
	if in.Tenant {
		ids, err = a.Entitlements.Everybody(ctx, ref.Tenant, in.After, syncPage)
	} else {
		ids, err = a.Entitlements.Moved(ctx, ref.Tenant, ref.Principal, in.Whole, in.After, syncPage)
	}
	if err != nil {
		return Synced{}, err
	}
	synced := Synced{Principals: len(ids), Invalidation: in.Invalidation}
	if len(ids) == syncPage {
		synced.After = ids[len(ids)-1]
	}
	for len(ids) > 0 {
		n := min(len(ids), entitlement.MaxBatch)
		changes, err := a.Entitlements.Compute(ctx, ref.Tenant, ids[:n], entitlement.Cause{Event: ref.Event})
		if err != nil {
			return synced, err
		}
		synced.Changed += len(changes)
		ids = ids[n:]
	}
	if synced.After == uuid.Nil {
		return synced, a.Entitlements.Clear(ctx, ref.Tenant, ref.Principal, in.Invalidation)
	}
	return synced, nil
}
