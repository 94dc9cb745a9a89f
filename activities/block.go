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
	_, err = t.change(ctx, "block", blocker.Block)
	return err
}

// refused is the outcome of a change that the downstream has permanently refused.
const refused connectors.Outcome = "refused"

// change blocks or unblocks the item, and records the answer. It records a permanent refusal, too, and returns it as an
// answer: a retry would not help, and the end of the item does not depend on it. It returns an error that is to be
// retried.
func (t *attempt) change(
	ctx context.Context, step string, ask func(context.Context, connectors.Target) (connectors.Answer, error),
) (connectors.Answer, error) {
	answer, err := ask(ctx, t.target)
	// Record also if the cascade was cancelled meanwhile: only a recorded block is undone.
	saved, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	note := func(step string, answer connectors.Answer) error {
		return t.Evidence.Append(saved, t.in.Cascade.Tenant, t.record(step, string(answer.Outcome), answer.Detail))
	}
	if connectors.IsPermanent(err) {
		answer, err = connectors.Answer{Outcome: refused, Detail: t.scrub(err.Error())}, nil
	}
	if err == nil {
		return answer, note(step, answer)
	}
	reason := t.scrub(err.Error())
	if err := note(step+"-failed", connectors.Answer{Outcome: "failed", Detail: reason}); err != nil {
		return connectors.Answer{}, err
	}
	return connectors.Answer{}, retryable(reason, ErrorDownstream, connectors.RetryAfter(err))
}
