package activities

import (
	"context"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

	"github.com/leaverhq/leaver/internal/entitlement"
)

// EntitleInput identifies the event of a principal.
type EntitleInput struct {
	Cascade CascadeRef `json:"cascade"`
	// Ends is true if the workflow itself ends what was granted under lost entitlements.
	Ends bool `json:"ends,omitempty"`
}

// Entitled contains the entitlements that a principal gained and lost by an event.
type Entitled struct {
	Gained []string `json:"gained,omitempty"`
	Lost   []string `json:"lost,omitempty"`
	Ends   bool     `json:"ends,omitempty"` // the event has, or had, items to end
}

// Entitle evaluates a principal's entitlements by the tenant's rules, and stores them.
func (a *Activities) Entitle(ctx context.Context, in EntitleInput) (Entitled, error) {
	ref := in.Cascade
	by := entitlement.Cause{Event: ref.Event, Ends: in.Ends}
	if _, err := a.Entitlements.Evaluate(ctx, ref.Tenant, []uuid.UUID{ref.Principal}, by); err != nil {
		return Entitled{}, err
	}
	// Include the changes that an earlier attempt has stored.
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

// SyncInput identifies a change of a group or of a tenant's rules, and the next page of
// its synchronisation.
type SyncInput struct {
	Cascade CascadeRef `json:"cascade"` // whose principal is the group
	// Tenant is true if all principals of the tenant are affected.
	Tenant bool `json:"tenant,omitempty"`
	// Whole is true if all current and former members of the group are affected, not only
	// those that were added or removed.
	Whole        bool      `json:"whole,omitempty"`
	After        uuid.UUID `json:"after"`
	Invalidation int64     `json:"invalidation,omitempty"` // the newest of all principals, at the start
}

// Synced is the result of one page of a synchronisation.
type Synced struct {
	Principals   int       `json:"principals"`
	Changed      int       `json:"changed"`
	After        uuid.UUID `json:"after"` // zero after the last page
	Invalidation int64     `json:"invalidation,omitempty"`
}

// syncPage is the number of principals that one attempt evaluates, in some seconds.
const syncPage = 2000

// Sync evaluates the entitlements of the next page of affected principals. A principal
// that lost an entitlement under which it holds a credential becomes a mover.
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
		changes, err := a.Entitlements.Evaluate(ctx, ref.Tenant, ids[:n], entitlement.Cause{Event: ref.Event})
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
