package activities

import (
	"context"
	"sync"

	"go.temporal.io/sdk/activity"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// Block keeps items of one connector from being used in a way that can be undone,
// where the connector can: what cannot be undone waits for the brake's release.
// What it could not block it tries again; what was blocked is on record, and left.
func (a *Activities) Block(ctx context.Context, in BatchInput) error {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	var mu sync.Mutex
	var failed error
	in.each(ctx, func(ctx context.Context, item ItemInput) {
		if err := a.block(ctx, item); err != nil {
			mu.Lock()
			failed = err // one tells enough: all that failed are tried again
			mu.Unlock()
		}
	})
	return failed
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
		return nil // it has failed, or another cascade has let go of it
	}
	if err := a.heldUp(ctx, t.item.Connector); err != nil {
		return err
	}
	blocker, ok := t.connector.(connectors.Blocker)
	if !ok {
		return t.Evidence.Append(ctx, tenant, t.record("block", string(connectors.Unknown), "the connector cannot block what can be unblocked"))
	}
	release, err := t.entry.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	// The positive control: once it is blocked, nothing sees it alive any more.
	if _, err := t.probeBefore(ctx); err != nil {
		return err
	}
	answer, err := blocker.Block(ctx, t.target)
	if err == nil {
		return t.Evidence.Append(ctx, tenant, t.record("block", string(answer.Outcome), answer.Detail))
	}
	reason := t.scrub(err.Error())
	if connectors.IsPermanent(err) {
		// It will be ended all the same: what refuses to be blocked is not asked twice.
		return t.Evidence.Append(ctx, tenant, t.record("block", "refused", reason))
	}
	if err := t.Evidence.Append(ctx, tenant, t.record("block-failed", "failed", reason)); err != nil {
		return err
	}
	return retryable(reason, ErrorDownstream, connectors.RetryAfter(err))
}
