package activities

import (
	"context"
	"errors"
	"sync"

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
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	var mu sync.Mutex
	var failed error
	in.each(ctx, func(ctx context.Context, item ItemInput) {
		if err := a.unblock(ctx, item); err != nil {
			mu.Lock()
			failed = err // one error is enough: a retry attempts all failed items
			mu.Unlock()
		}
	})
	return Done{}, failed
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
	entry := a.Connectors[item.Connector]
	t := &attempt{
		Activities: a, in: in, item: item, info: activity.GetInfo(ctx), lease: lease, entry: entry,
		connector: entry.Connector,
	}
	t.target = t.targetOf(item)
	t.target.Fence = t.checkLease
	defer t.yield(ctx)
	if err := a.checkPaused(ctx, item.Connector); err != nil {
		return err
	}
	unblocker, ok := connectors.As[connectors.Unblocker](t.connector)
	if !ok {
		return t.Evidence.Append(ctx, tenant, t.record("unblock", string(connectors.Unknown),
			"the connector does not support to undo its blocks: do it by hand"))
	}
	release, err := t.entry.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	answer, err := unblocker.Unblock(ctx, t.target)
	if err == nil {
		return t.Evidence.Append(ctx, tenant, t.record("unblock", string(answer.Outcome), answer.Detail))
	}
	reason := t.scrub(err.Error())
	if connectors.IsPermanent(err) {
		return t.Evidence.Append(ctx, tenant, t.record("unblock", "refused", reason))
	}
	if err := t.Evidence.Append(ctx, tenant, t.record("unblock-failed", "failed", reason)); err != nil {
		return err
	}
	return retryable(reason, ErrorDownstream, connectors.RetryAfter(err))
}
