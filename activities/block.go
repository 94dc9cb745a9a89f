package activities

import (
	"context"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// Block reversibly blocks items of one connector that are held for approval, if the
// connector supports it. It returns an error if any item has to be retried. Items whose
// evidence shows a block are skipped.
func (a *Activities) Block(ctx context.Context, in BatchInput) (Done, error) {
	return in.all(ctx, a.block)
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
	if _, _, err := t.probeBefore(ctx); err != nil {
		return err
	}
	return t.change(ctx, "block", blocker.Block)
}

// change blocks or unblocks the item, and records the answer. It records a permanent refusal, too, and returns nil: a
// retry would not help, and the end of the item does not depend on it. It returns an error that is to be retried.
func (t *attempt) change(
	ctx context.Context, step string, ask func(context.Context, connectors.Target) (connectors.Answer, error),
) error {
	answer, err := ask(ctx, t.target)
	// Record also if the cascade was cancelled meanwhile: only a recorded block is undone.
	saved, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	note := func(step, outcome, detail string) error {
		return t.Evidence.Append(saved, t.in.Cascade.Tenant, t.record(step, outcome, detail))
	}
	if err == nil {
		return note(step, string(answer.Outcome), answer.Detail)
	}
	reason := t.scrub(err.Error())
	if connectors.IsPermanent(err) {
		return note(step, "refused", reason)
	}
	if err := note(step+"-failed", "failed", reason); err != nil {
		return err
	}
	return retryable(reason, ErrorDownstream, connectors.RetryAfter(err))
}
