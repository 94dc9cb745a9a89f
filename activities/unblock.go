package activities

import (
	"context"
	"errors"

	"github.com/google/uuid"

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
	return in.all(ctx, a.unblock)
}

// maxLeft bounds the items that one run of the reconciler unblocks in a tenant, and leftBatch those of one activity.
const (
	maxLeft   = 500
	leftBatch = 50
)

// LeftBlocked returns the items that cancelled cascades have left blocked and may unblock, in batches for
// [Activities.Unblock].
func (a *Activities) LeftBlocked(ctx context.Context, tenant uuid.UUID) ([]BatchInput, error) {
	left, err := a.Cascades.LeftBlocked(ctx, tenant, maxLeft)
	if err != nil {
		return nil, err
	}
	var batches []BatchInput
	for _, l := range left {
		cascade, n := CascadeRef{Tenant: tenant, Event: l.Event}, len(batches)-1
		if n < 0 || batches[n].Connector != l.Connector || batches[n].Cascade != cascade ||
			len(batches[n].Items) == leftBatch || a.Connectors[l.Connector].Rate > 0 {
			batches = append(batches, BatchInput{Cascade: cascade, Connector: l.Connector})
			n++
		}
		batches[n].Items = append(batches[n].Items, l.Item)
	}
	return batches, nil
}

func (a *Activities) unblock(ctx context.Context, in ItemInput) error {
	tenant, lease := in.Cascade.Tenant, attemptOf(ctx, in)
	item, err := a.Credentials.OpenBlocked(ctx, tenant, lease)
	switch {
	case errors.Is(err, credential.ErrBusy):
		return retryable(err.Error(), ErrorBusy, busyRetry)
	case errors.Is(err, credential.ErrForeign):
		return nil // unblocked already, or another cascade ends it now
	case err != nil:
		return err
	}
	t := a.attemptAt(ctx, in, item, lease)
	defer t.yield(ctx)
	if err := a.checkPaused(ctx, item.Connector); err != nil {
		return err
	}
	unblocker, ok := connectors.As[connectors.Unblocker](t.connector)
	if !ok {
		return t.Evidence.Append(ctx, tenant, t.record("unblock", string(connectors.Unknown),
			"the connector does not support unblock: unblock the credential manually"))
	}
	release, err := t.entry.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	return t.change(ctx, "unblock", unblocker.Unblock)
}
