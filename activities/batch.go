package activities

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

const (
	// batchParallel is how many items of a batch are tried at a time.
	batchParallel = 10
	// batchItemTimeout bounds one item's one attempt in a batch, so that a batch of
	// 50 takes no longer than a stopping worker waits. Who needs longer goes on alone.
	batchItemTimeout = 10 * time.Second
)

// BatchInput names items of one connector, and the cascade that ends them: all
// scheduled runs, or all credentials.
type BatchInput struct {
	Cascade CascadeRef  `json:"cascade"`
	Runs    bool        `json:"runs,omitempty"`
	Items   []uuid.UUID `json:"items"`
}

// each calls do for every item, some at a time and each with a time of its own.
func (in BatchInput) each(ctx context.Context, do func(context.Context, ItemInput)) {
	slots := make(chan struct{}, batchParallel)
	var running sync.WaitGroup
	for _, item := range in.Items {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, batchItemTimeout)
			defer cancel()
			do(ctx, ItemInput{Cascade: in.Cascade, Item: item})
		})
	}
	running.Wait()
}

// BatchResult is what became of each item of a batch.
type BatchResult struct {
	Outcomes []ItemOutcome `json:"outcomes"`
}

// ItemOutcome is what became of one item.
type ItemOutcome struct {
	Item uuid.UUID `json:"item"`
	ItemResult
	// Again: the attempt failed and may be made again, not before After.
	Again bool          `json:"again,omitempty"`
	After time.Duration `json:"after,omitempty"`
}

// Of returns the outcome of one item, if the batch came to it.
func (r BatchResult) Of(item uuid.UUID) (ItemOutcome, bool) {
	for _, o := range r.Outcomes {
		if o.Item == item {
			return o, true
		}
	}
	return ItemOutcome{}, false
}

// EndBatch tries each item once. It never fails because of one: what can be tried
// again, the outcome says. Its heartbeats carry the outcomes, so that another
// worker goes on where a killed one was.
func (a *Activities) EndBatch(ctx context.Context, in BatchInput) (BatchResult, error) {
	b := &batch{}
	if activity.HasHeartbeatDetails(ctx) {
		// Details that cannot be read cost a second look at each item, no more.
		_ = activity.GetHeartbeatDetails(ctx, &b.result)
	}
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx, b.sofar()) })()
	before := b.sofar()
	in.each(ctx, func(ctx context.Context, item ItemInput) {
		if _, done := before.Of(item.Item); !done {
			b.add(a.tryOnce(ctx, in.Runs, item))
		}
	})
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
	return BatchResult{Outcomes: append([]ItemOutcome(nil), b.result.Outcomes...)}
}

func (a *Activities) tryOnce(ctx context.Context, run bool, in ItemInput) ItemOutcome {
	step, end := "revoke", verb(func(ctx context.Context, t *attempt) (connectors.Answer, error) {
		if t.item.Verb == credential.Rotate { // another principal registered the account since it was discovered
			return connectors.Answer{}, connectors.Retryable("others rely on the account: it is rotated, alone")
		}
		return revoke(ctx, t)
	})
	if run {
		step, end = "cancel", cancel
	}
	result, err := a.try(ctx, in, step, end)
	if err == nil {
		return ItemOutcome{Item: in.Item, ItemResult: result}
	}
	var application *temporal.ApplicationError
	if errors.As(err, &application) && application.Type() == ErrorPermanent {
		return ItemOutcome{Item: in.Item, ItemResult: ItemResult{State: credential.Survivor, Detail: application.Message()}}
	}
	if errors.As(err, &application) && application.Type() == ErrorForeign {
		return ItemOutcome{Item: in.Item, ItemResult: ItemResult{State: credential.Survivor, Detail: application.Message()}}
	}
	o := ItemOutcome{Item: in.Item, Again: true}
	if application != nil {
		o.After = application.NextRetryDelay()
	}
	return o
}
