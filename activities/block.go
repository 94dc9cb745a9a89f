package activities

import (
	"context"
	"sync"

	"go.temporal.io/sdk/activity"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// Block reversibly blocks items of one connector that are held for approval, if the
// connector supports it. It returns an error if any item has to be retried. Items whose
// evidence shows a block are skipped.
func (a *Activities) Block(ctx context.Context, in BatchInput) (Done, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	var mu sync.Mutex
	var failed error
	in.each(ctx, func(ctx context.Context, item ItemInput) {
		if err := a.block(ctx, item); err != nil {
			mu.Lock()
			failed = err // one error is enough: a retry attempts all failed items
			mu.Unlock()
		}
	})
	return Done{}, failed
}

func (a *Activities) block(ctx context.Context, in ItemInput) error {
	tenant := in.Cascade.Tenant
	if blocked, err := a.Evidence.Blocked(ctx, tenant, in.Item, in.Cascade.Event); err != nil || blocked {
		return err
	}
	t, err := a.begin(ctx, in)
	if err != nil {
		return err
	}
	if t.item.State.Ended() {
		return nil
	}
	defer t.yield(ctx)
	if t.item.State != credential.Ending {
		return nil // it failed, or another cascade has released it
	}
	if t.item.Verb == credential.Rotate {
		return nil // another principal has registered the account since it was discovered
	}
	if err := a.checkPaused(ctx, t.item.Connector); err != nil {
		return err
	}
	blocker, ok := connectors.As[connectors.Blocker](t.connector)
	if !ok {
		return t.Evidence.Append(ctx, tenant, t.record(
			"block", string(connectors.Unknown), "the connector does not support reversible blocks",
		))
	}
	release, err := t.entry.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	// This is the positive control: after the block, no probe sees the item alive.
	if _, err := t.probeBefore(ctx); err != nil {
		return err
	}
	answer, err := blocker.Block(ctx, t.target)
	if err == nil {
		// Also if the cascade was cancelled meanwhile: only what is recorded is undone.
		return t.Evidence.Append(context.WithoutCancel(ctx), tenant, t.record("block", string(answer.Outcome), answer.Detail))
	}
	reason := t.scrub(err.Error())
	if connectors.IsPermanent(err) {
		// Do not retry: the item is ended anyway once the cascade is approved.
		return t.Evidence.Append(ctx, tenant, t.record("block", "refused", reason))
	}
	if err := t.Evidence.Append(ctx, tenant, t.record("block-failed", "failed", reason)); err != nil {
		return err
	}
	return retryable(reason, ErrorDownstream, connectors.RetryAfter(err))
}
