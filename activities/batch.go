package activities

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

const (
	// batchParallel is the number of items of a batch that are attempted concurrently.
	batchParallel = 10
	// batchItemTimeout bounds the attempt at one item of a batch. A batch of 50 takes at most
	// as long as a stopping worker waits. Items that need longer are retried individually.
	batchItemTimeout = 10 * time.Second
)

// BatchInput identifies items of one connector, either all scheduled runs or all
// credentials, and the cascade that ends them.
type BatchInput struct {
	Cascade CascadeRef `json:"cascade"`
	// Connector is empty in batches of cascades that an earlier version of leaver started.
	Connector string      `json:"connector,omitempty"`
	Runs      bool        `json:"runs,omitempty"`
	Items     []uuid.UUID `json:"items"`
}

// each calls do for every item, as [parallel] does.
func (in BatchInput) each(ctx context.Context, do func(context.Context, ItemInput)) {
	parallel(ctx, in.Items, batchItemTimeout, func(ctx context.Context, item uuid.UUID) {
		do(ctx, ItemInput{Cascade: in.Cascade, Item: item})
	})
}

// parallel calls do for every element, [batchParallel] at a time, each with a separate timeout.
func parallel[T any](ctx context.Context, all []T, timeout time.Duration, do func(context.Context, T)) {
	slots := make(chan struct{}, batchParallel)
	var running sync.WaitGroup
	for _, one := range all {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			do(ctx, one)
		})
	}
	running.Wait()
}

// all calls do for every item as [BatchInput.each] does, with heartbeats. It returns an error if any call fails.
func (in BatchInput) all(ctx context.Context, do func(context.Context, ItemInput) error) (Done, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	var mu sync.Mutex
	var failed error
	in.each(ctx, func(ctx context.Context, item ItemInput) {
		if err := do(ctx, item); err != nil {
			mu.Lock()
			failed = err // one error is enough: a retry attempts all failed items
			mu.Unlock()
		}
	})
	return Done{}, failed
}

// BatchResult contains the outcome of each item of a batch.
type BatchResult struct {
	Outcomes []ItemOutcome `json:"outcomes"`
	// Bulk is set if the connector ends several items with one request: those that can be retried are retried together.
	Bulk bool `json:"bulk,omitempty"`
}

// ItemOutcome is the outcome of one item.
type ItemOutcome struct {
	Item uuid.UUID `json:"item"`
	ItemResult
	// Again is true if the attempt failed and can be retried after a delay of After.
	Again bool          `json:"again,omitempty"`
	After time.Duration `json:"after,omitempty"`
}

// Of returns the outcome of an item, and whether the batch has attempted it.
func (r BatchResult) Of(item uuid.UUID) (ItemOutcome, bool) {
	for _, o := range r.Outcomes {
		if o.Item == item {
			return o, true
		}
	}
	return ItemOutcome{}, false
}

// EndBatch attempts each item once, unless no time is left for it. The failure of an item does not fail the batch: its
// outcome says whether it can be retried. The heartbeats carry the outcomes, so that
// another worker continues where a killed one stopped.
func (a *Activities) EndBatch(ctx context.Context, in BatchInput) (BatchResult, error) {
	b := &batch{}
	bulk, together := connectors.As[connectors.BulkRevoker](a.Connectors[in.Connector].Connector)
	together = together && !in.Runs
	if activity.HasHeartbeatDetails(ctx) {
		// If the details cannot be read, each item is attempted again, which is harmless.
		_ = activity.GetHeartbeatDetails(ctx, &b.result)
	}
	b.result.Bulk = together
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx, b.sofar()) })()
	before := b.sofar()
	in.Items = slices.DeleteFunc(slices.Clone(in.Items), func(item uuid.UUID) bool {
		_, done := before.Of(item)
		return done
	})
	if together {
		a.revokeTogether(ctx, in, bulk, b)
	} else {
		in.each(ctx, func(ctx context.Context, item ItemInput) { b.add(a.tryOnce(ctx, in.Runs, item)) })
	}
	if err := ctx.Err(); err != nil {
		return BatchResult{}, err
	}
	return b.sofar(), nil
}

// batch collects outcomes.
type batch struct {
	mu     sync.Mutex
	result BatchResult
}

func (b *batch) add(o ItemOutcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.result.Outcomes = append(b.result.Outcomes, o)
}

func (b *batch) sofar() BatchResult {
	b.mu.Lock()
	defer b.mu.Unlock()
	return BatchResult{Outcomes: slices.Clone(b.result.Outcomes), Bulk: b.result.Bulk}
}

// errShared is the error of an item that another principal has registered, too, since it was discovered.
var errShared = connectors.Retryable("the account is shared: it will be rotated individually")

func (a *Activities) tryOnce(ctx context.Context, run bool, in ItemInput) ItemOutcome {
	step, end := "revoke", verb(func(ctx context.Context, t *attempt) (connectors.Answer, error) {
		if t.item.Verb == credential.Rotate {
			return connectors.Answer{}, errShared
		}
		return revoke(ctx, t)
	})
	if run {
		step, end = "cancel", cancel
	}
	result, err := a.try(ctx, in, step, end)
	return outcomeOf(in.Item, result, err)
}

// outcomeOf returns the outcome of one attempt at an item.
func outcomeOf(item uuid.UUID, result ItemResult, err error) ItemOutcome {
	if err == nil {
		return ItemOutcome{Item: item, ItemResult: result}
	}
	o := ItemOutcome{Item: item, Again: true}
	var application *temporal.ApplicationError
	if !errors.As(err, &application) {
		return o
	}
	if application.Type() == ErrorPermanent || application.Type() == ErrorForeign {
		return ItemOutcome{Item: item, ItemResult: ItemResult{State: credential.Failed, Detail: application.Message()}}
	}
	o.After = application.NextRetryDelay()
	return o
}
