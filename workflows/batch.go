package workflows

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// beginGroups starts items in batches of one connector: one activity for a batch costs
// a tenth of one activity per item. Items that a batch could not end are retried in
// further batches if the connector ends several with one request, and otherwise
// individually by Temporal. Rotations are not batched, nor are the items of
// rate-limited connectors, as the limit counts activities.
func (c *cascadeRun) beginGroups(ctx workflow.Context, items []*item) {
	for _, batch := range c.batchesOf(items) {
		if len(batch) == 1 {
			c.begin(ctx, batch[0])
		} else {
			c.beginBatch(ctx, batch)
		}
	}
}

// batchesOf groups items by connector, in their order.
func (c *cascadeRun) batchesOf(items []*item) [][]*item {
	var batches [][]*item
	filling := make(map[string]int) // by connector: the index of the batch that has room
	for _, i := range items {
		n, ok := filling[i.Connector]
		if i.Verb == credential.Rotate || c.rated(i.Connector) || !ok || len(batches[n]) >= c.in.Policy.Batch {
			batches = append(batches, []*item{i})
			if i.Verb != credential.Rotate {
				filling[i.Connector] = len(batches) - 1
			}
			continue
		}
		batches[n] = append(batches[n], i)
	}
	return batches
}

// reserve waits for n places in a connector's window. A batch that is larger than the
// window takes all of it.
func (c *cascadeRun) reserve(ctx workflow.Context, connector string, n int) error {
	if err := workflow.Await(ctx, func() bool {
		return c.open[connector] == 0 || c.open[connector]+n <= c.in.Policy.Window
	}); err != nil {
		return err
	}
	c.open[connector] += n
	return nil
}

func idsOf(items []*item) []uuid.UUID {
	ids := make([]uuid.UUID, 0, len(items))
	for _, i := range items {
		ids = append(ids, i.ID)
	}
	return ids
}

// bulkRounds is the number of batches in which an item is attempted, if its downstream ends several items with one
// request, before it is retried individually.
const bulkRounds = 10

func (c *cascadeRun) beginBatch(ctx workflow.Context, items []*item) {
	for _, i := range items {
		c.set(i, credential.Ending, "")
		c.count(i, 1)
	}
	id := c.nextBatchID(items)
	c.show(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) { c.finishBatch(ctx, id, items, 1) })
}

// nextBatchID returns the ID of another batch.
func (c *cascadeRun) nextBatchID(items []*item) string {
	c.batches++
	return fmt.Sprintf("batch:%s:%d", items[0].Connector, c.batches)
}

// finishBatch attempts started items in one activity, and retries those that it could not end.
func (c *cascadeRun) finishBatch(ctx workflow.Context, id string, items []*item, round int) {
	result, err := c.endBatch(ctx, id, items)
	var immediate, delayed []*item // those that are retried; delayed if the downstream asked for that
	var delay time.Duration
	for _, i := range items {
		outcome, ok := result.Of(i.ID)
		switch {
		case err == nil && ok && !outcome.Again:
			c.settleItem(ctx, i, outcome.ItemResult, nil)
			c.count(i, -1)
		case !result.Bulk || round == bulkRounds:
			c.finishAfter(ctx, i, outcome.After)
		case outcome.After > 0:
			delayed, delay = append(delayed, i), max(delay, outcome.After)
		default:
			immediate = append(immediate, i)
		}
	}
	c.retryTogether(ctx, immediate, min(c.in.Policy.InitialInterval<<(round-1), c.in.Policy.MaximumInterval), round)
	c.retryTogether(ctx, delayed, delay, round)
	c.show(ctx)
}

// finishAfter retries an item individually after a delay.
func (c *cascadeRun) finishAfter(ctx workflow.Context, i *item, delay time.Duration) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		c.pause(ctx, delay, i)
		c.finish(ctx, i)
	})
}

// retryTogether retries items in one activity after a delay; a single one individually.
func (c *cascadeRun) retryTogether(ctx workflow.Context, items []*item, delay time.Duration, round int) {
	switch len(items) {
	case 0:
	case 1:
		c.finishAfter(ctx, items[0], delay)
	default:
		id := c.nextBatchID(items)
		workflow.Go(ctx, func(ctx workflow.Context) {
			c.pause(ctx, delay, items...)
			c.finishBatch(ctx, id, items, round+1)
		})
	}
}

// endBatch runs one activity that attempts each of the items once.
func (c *cascadeRun) endBatch(ctx workflow.Context, id string, items []*item) (activities.BatchResult, error) {
	connector := items[0].Connector
	if err := c.reserve(ctx, connector, len(items)); err != nil {
		return activities.BatchResult{}, err
	}
	defer func() { c.open[connector] -= len(items) }()
	in := activities.BatchInput{
		Cascade: c.in.ref(), Connector: connector, Runs: items[0].Kind == connectors.ScheduledRun, Items: idsOf(items),
	}
	for _, i := range items {
		i.round++
		i.cancel = nil // an operator cannot cancel the activity of others
	}
	options := c.options(ctx, connector)
	options.ActivityID, options.Summary = id, fmt.Sprintf("end %d items at %s", len(items), connector)
	var result activities.BatchResult
	err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), a.EndBatch, in).Get(ctx, &result)
	return result, err
}

// pause delays the next attempt at items for as long as their downstream requested, or until an operator requests a
// retry of one of them, or all are waived.
func (c *cascadeRun) pause(ctx workflow.Context, wait time.Duration, items ...*item) {
	waived := func(i *item) bool { return i.state == credential.Waived }
	until := workflow.Now(ctx).Add(max(wait, c.in.Policy.InitialInterval))
	for {
		left := slices.DeleteFunc(slices.Clone(items), waived)
		if len(left) == 0 {
			return
		}
		sleeping, cancel := workflow.WithCancel(ctx)
		for _, i := range left {
			i.cancel, i.again = cancel, false
		}
		err := workflow.Sleep(sleeping, until.Sub(workflow.Now(ctx))) // a retry request or a waiver cancels it
		if err == nil || ctx.Err() != nil || slices.ContainsFunc(left, func(i *item) bool { return i.again }) {
			return
		}
	}
}
