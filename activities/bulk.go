package activities

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// bulkStepTimeout bounds each of the steps at one item before and after a request about several, and bulkTimeout the
// request: a batch of 50 takes at most as long as a batch without such requests.
const (
	bulkStepTimeout = batchItemTimeout / 2
	bulkTimeout     = 10 * time.Second
)

// revokeTogether attempts each item once, like [Activities.tryOnce], but requests the end of several with one request.
// Each has its own lease, probes and evidence.
func (a *Activities) revokeTogether(ctx context.Context, in BatchInput, bulk connectors.BulkRevoker, b *batch) {
	var mu sync.Mutex
	var attempts []*attempt
	parallel(ctx, in.Items, bulkStepTimeout, func(ctx context.Context, item uuid.UUID) {
		t, outcome := a.readyForBulk(ctx, ItemInput{Cascade: in.Cascade, Item: item}, bulk)
		if t == nil {
			b.add(outcome)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		attempts = append(attempts, t)
	})
	for some := range slices.Chunk(attempts, bulk.Bulk()) {
		a.revokeBulk(ctx, some, bulk, b)
	}
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

// revokeBulk ends items with one request, and concludes each by what the answer says about it.
func (a *Activities) revokeBulk(ctx context.Context, attempts []*attempt, bulk connectors.BulkRevoker, b *batch) {
	targets := make([]connectors.Target, len(attempts))
	for i, t := range attempts {
		targets[i] = t.target
	}
	ended := a.request(ctx, attempts[0], bulk, targets)
	type concluding struct {
		*attempt
		connectors.Ended
	}
	var all []concluding
	for i, t := range attempts {
		all = append(all, concluding{t, ended[i]})
	}
	parallel(ctx, all, bulkStepTimeout, func(ctx context.Context, c concluding) {
		defer c.yield(ctx)
		release, err := c.slot(ctx, "revoke")
		if err != nil {
			b.add(outcomeOf(c.in.Item, ItemResult{}, err))
			return
		}
		defer release()
		result, err := c.finish(ctx, "revoke", c.Answer, c.Err)
		b.add(outcomeOf(c.in.Item, result, err))
	})
}

// request makes one request about several targets.
func (a *Activities) request(
	ctx context.Context, t *attempt, bulk connectors.BulkRevoker, targets []connectors.Target,
) []connectors.Ended {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	release, err := t.entry.Acquire(ctx)
	if err != nil {
		ended := make([]connectors.Ended, len(targets))
		for i := range ended {
			ended[i].Err = connectors.Retryable("the connector has no free slot: %w", err)
		}
		return ended
	}
	defer release()
	return bulk.RevokeBulk(ctx, targets)
}
