package activities

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
)

// Blocked returns the items that a cancelled cascade has blocked and may unblock.
func (a *Activities) Blocked(ctx context.Context, ref CascadeRef) ([]cascade.Item, error) {
	return a.Cascades.Blocked(ctx, ref.Tenant, ref.Event)
}

// Unblock undoes the blocks of items of one connector, after their cascade was cancelled. It returns an error if any
// item has to be retried.
func (a *Activities) Unblock(ctx context.Context, in BatchInput) (Done, error) {
	return in.all(ctx, func(ctx context.Context, item ItemInput) error {
		_, err := a.unblock(ctx, item)
		return err
	})
}

// LeftBlockedAt returns the names of the connectors with items that cancelled cascades have left blocked.
func (a *Activities) LeftBlockedAt(ctx context.Context, tenant uuid.UUID) ([]string, error) {
	names, err := a.Cascades.LeftBlockedAt(ctx, tenant)
	return slices.DeleteFunc(names, func(name string) bool { return a.Connectors[name].Connector == nil }), err
}

// UnblockedLeft counts the items of a page that were unblocked and those that were not, with a reason. After is the
// last item of the page, or zero if there are no more.
type UnblockedLeft struct {
	Unblocked int       `json:"unblocked"`
	Blocked   int       `json:"blocked,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	After     uuid.UUID `json:"after,omitzero"`
}

// leftPage is the number of items in a page of [Activities.UnblockLeft].
const leftPage = 50

// UnblockLeft undoes the blocks that cancelled cascades have left in a page of a connector's items. The next run of the
// reconciler tries again what it could not unblock.
func (a *Activities) UnblockLeft(ctx context.Context, in PageInput) (UnblockedLeft, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	if err := a.checkPaused(ctx, in.Connector); err != nil {
		return UnblockedLeft{}, err
	}
	page := leftPage
	if a.Connectors[in.Connector].Rate > 0 {
		page = 1 // the limit counts activities
	}
	left, err := a.Cascades.LeftBlocked(ctx, in.Tenant, in.Connector, in.After, page)
	if err != nil {
		return UnblockedLeft{}, err
	}
	var found UnblockedLeft
	var mu sync.Mutex
	parallel(ctx, left, batchItemTimeout, func(ctx context.Context, l cascade.LeftBlocked) {
		of := ItemInput{Cascade: CascadeRef{Tenant: in.Tenant, Event: l.Event}, Item: l.Item}
		answer, err := a.unblock(ctx, of)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil:
			found.Blocked, found.Reason = found.Blocked+1, err.Error()
		case answer.Outcome == connectors.Done || answer.Outcome == connectors.Gone:
			found.Unblocked++
		case answer.Outcome != "":
			found.Blocked, found.Reason = found.Blocked+1, answer.Detail
		}
	})
	if len(left) == page {
		found.After = left[len(left)-1].Item
	}
	return found, ctx.Err()
}

// unblock undoes the block of one item. The answer is empty if there is nothing to undo any more.
func (a *Activities) unblock(ctx context.Context, in ItemInput) (connectors.Answer, error) {
	tenant, lease := in.Cascade.Tenant, attemptOf(ctx, in)
	item, err := a.Credentials.OpenBlocked(ctx, tenant, lease)
	switch {
	case errors.Is(err, credential.ErrBusy):
		return connectors.Answer{}, retryable(err.Error(), ErrorBusy, busyRetry)
	case errors.Is(err, credential.ErrForeign):
		return connectors.Answer{}, nil // unblocked already, or another cascade ends it now
	case err != nil:
		return connectors.Answer{}, err
	}
	t := a.attemptAt(ctx, in, item, lease)
	defer t.yield(ctx)
	if err := a.checkPaused(ctx, item.Connector); err != nil {
		return connectors.Answer{}, err
	}
	unblocker, ok := connectors.As[connectors.Unblocker](t.connector)
	if !ok {
		answer := connectors.Answer{
			Outcome: connectors.Outcome(connectors.Unknown),
			Detail:  "the connector does not support unblock: unblock the credential manually",
		}
		return answer, t.Evidence.Append(ctx, tenant, t.record("unblock", string(answer.Outcome), answer.Detail))
	}
	release, err := t.entry.Acquire(ctx)
	if err != nil {
		return connectors.Answer{}, err
	}
	defer release()
	return t.change(ctx, "unblock", unblocker.Unblock)
}
