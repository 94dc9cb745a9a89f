package activities

import (
	"context"
	"math/bits"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

const (
	// bulkStepTimeout bounds each step at one item before and after a request about several, and bulkTimeout the request.
	bulkStepTimeout = batchItemTimeout / 2
	bulkTimeout     = 10 * time.Second
	// minRequestTime is the minimum remaining time for a further bulk request.
	minRequestTime = bulkTimeout + bulkStepTimeout
)

// revokeTogether attempts each item once, like [Activities.tryOnce], but requests the end of several with one request.
// Each has its own lease, probes and evidence. Items for which no time is left have no outcome.
func (a *Activities) revokeTogether(ctx context.Context, in BatchInput, bulk connectors.BulkRevoker, b *batch) {
	for n, items := range slices.Collect(slices.Chunk(in.Items, bulk.Bulk())) {
		if n > 0 && timeLeft(ctx) < minRequestTime {
			return
		}
		if attempts := a.prepare(ctx, in.Cascade, items, bulk, b); len(attempts) > 0 {
			requests := 2*bits.Len(uint(len(attempts))) + 1
			a.revokeBulk(ctx, attempts, bulk, &requests, b)
		}
	}
}

// timeLeft returns the time until the deadline of an activity.
func timeLeft(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return batchItemTimeout * batchParallel
	}
	return time.Until(deadline)
}

// prepare makes the attempts at items up to the request. It takes less than half of the time that is left, so that
// slow probes do not prevent the request.
func (a *Activities) prepare(
	ctx context.Context, of CascadeRef, items []uuid.UUID, bulk connectors.BulkRevoker, b *batch,
) (attempts []*attempt) {
	ctx, cancel := context.WithTimeout(ctx, timeLeft(ctx)*2/5)
	defer cancel()
	var mu sync.Mutex
	parallel(ctx, items, bulkStepTimeout, func(ctx context.Context, item uuid.UUID) {
		t, outcome := a.readyForBulk(ctx, ItemInput{Cascade: of, Item: item}, bulk)
		if t == nil {
			b.add(outcome)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		attempts = append(attempts, t)
	})
	return attempts
}

// readyForBulk makes an attempt up to the request. It returns nil and the outcome if nothing is left to request.
func (a *Activities) readyForBulk(
	ctx context.Context, in ItemInput, bulk connectors.BulkRevoker,
) (*attempt, ItemOutcome) {
	t, result, err := a.ready(ctx, in, "revoke")
	if t == nil {
		return nil, outcomeOf(in.Item, result, err)
	}
	result, pending, err := t.untilRequest(ctx, bulk)
	if pending {
		return t, ItemOutcome{}
	}
	t.yield(ctx)
	return nil, outcomeOf(in.Item, result, err)
}

// untilRequest makes the steps before the request. pending is true if the request is left.
func (t *attempt) untilRequest(
	ctx context.Context, bulk connectors.BulkRevoker,
) (result ItemResult, pending bool, err error) {
	release, err := t.slot(ctx, "revoke")
	if err != nil {
		return ItemResult{}, false, err
	}
	defer release()
	settled, err := t.control(ctx)
	switch {
	case err != nil:
		return ItemResult{}, false, err
	case settled != nil:
		result, err = t.verify(ctx, *settled)
		return result, false, err
	case t.item.Verb == credential.Rotate:
		return ItemResult{}, false, t.fail(ctx, "revoke", errShared)
	}
	answer, joined, err := t.beforeRevoke(ctx, bulk)
	if err == nil && !joined {
		return ItemResult{}, true, nil
	}
	result, err = t.finish(ctx, "revoke", answer, err)
	return result, false, err
}

// concluding is an attempt with what the answer to its request says about it.
type concluding struct {
	*attempt
	connectors.Ended
}

// revokeBulk ends items with one request, and concludes each by what the answer says about it. Items without a
// conclusive answer are requested again in halves, so that one refused item does not delay the others, as long as
// requests is positive: a refusal of all items must not use up the downstream's rate limit.
func (a *Activities) revokeBulk(
	ctx context.Context, attempts []*attempt, bulk connectors.BulkRevoker, requests *int, b *batch,
) {
	*requests--
	var conclusive []concluding
	var ambiguous []*attempt
	for i, ended := range a.request(ctx, attempts, bulk) {
		if ended.Ambiguous && len(attempts) > 1 && *requests > 0 && timeLeft(ctx) >= minRequestTime {
			ambiguous = append(ambiguous, attempts[i])
		} else {
			conclusive = append(conclusive, concluding{attempts[i], ended})
		}
	}
	parallel(ctx, conclusive, bulkStepTimeout, func(ctx context.Context, c concluding) {
		defer c.yield(ctx)
		result, err := c.finishBulk(ctx, c.Ended)
		b.add(outcomeOf(c.in.Item, result, err))
	})
	if len(ambiguous) > 0 {
		for half := range slices.Chunk(ambiguous, (len(ambiguous)+1)/2) {
			a.revokeBulk(ctx, half, bulk, requests, b)
		}
	}
}

// finishBulk concludes an item by what an answer says about it. A confirmed end is recorded even if no slot is free for
// the probe after it.
func (t *attempt) finishBulk(ctx context.Context, ended connectors.Ended) (ItemResult, error) {
	release, err := t.entry.Acquire(ctx)
	if err == nil {
		defer release()
	}
	if err == nil || ended.Err != nil {
		return t.finish(ctx, "revoke", ended.Answer, ended.Err)
	}
	if ended.Outcome == connectors.Done {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
		defer cancel()
		done := t.record("revoke", string(ended.Outcome), ended.Detail)
		if err := t.Evidence.Append(ctx, t.in.Cascade.Tenant, done); err != nil {
			return ItemResult{}, err
		}
	}
	return ItemResult{}, retryable("the connector has no free slot for the probe after the end", ErrorDownstream, 0)
}

// request makes one request about several items, unless the connector was paused meanwhile.
func (a *Activities) request(
	ctx context.Context, attempts []*attempt, bulk connectors.BulkRevoker,
) []connectors.Ended {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	targets := make([]connectors.Target, len(attempts))
	for i, t := range attempts {
		targets[i] = t.target
	}
	err := a.checkPaused(ctx, attempts[0].item.Connector)
	if err == nil {
		var release func()
		if release, err = attempts[0].entry.Acquire(ctx); err == nil {
			defer release()
			return bulk.RevokeBulk(ctx, targets)
		}
		err = connectors.Retryable("the connector has no free slot: %w", err)
	}
	ended := make([]connectors.Ended, len(targets))
	for i := range ended {
		ended[i].Err = err
	}
	return ended
}
