package activities

import (
	"context"
	"errors"

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
