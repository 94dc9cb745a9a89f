package activities

import (
	"context"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Block keeps an item from being used in a way that can be undone, where its
// connector can: what cannot be undone waits for the brake's release.
func (a *Activities) Block(ctx context.Context, in ItemInput) error {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	item, err := a.Inventory.Open(ctx, in.Cascade.Tenant, in.Item)
	if err != nil {
		return err
	}
	t := &attempt{Activities: a, in: in, item: item, info: activity.GetInfo(ctx), entry: a.Connectors[item.Connector]}
	blocker, ok := t.entry.Connector.(connectors.Blocker)
	if !ok {
		return t.Evidence.Append(ctx, in.Cascade.Tenant, t.record("block", string(connectors.Unknown), "the connector cannot block what can be unblocked"))
	}
	if err := a.heldUp(ctx, item.Connector); err != nil {
		return err
	}
	t.connector = t.entry.Connector
	t.target = connectors.Target{
		Tenant: in.Cascade.Tenant, Item: item.ID, Kind: item.Kind, Reference: item.Reference, Secret: item.Secret,
		Key: in.Cascade.Event.String() + "/" + item.ID.String(),
	}
	// The positive control: once it is blocked, nothing sees it alive any more.
	if err := t.probeBefore(ctx); err != nil {
		return err
	}
	answer, err := blocker.Block(ctx, t.target)
	if err != nil {
		reason := t.scrub(err.Error())
		if err := t.Evidence.Append(ctx, in.Cascade.Tenant, t.record("block", "failed", reason)); err != nil {
			return err
		}
		// It will be ended all the same: what refuses to be blocked is not asked twice.
		return temporal.NewApplicationErrorWithOptions(reason, ErrorDownstream, temporal.ApplicationErrorOptions{
			NonRetryable: connectors.IsPermanent(err), NextRetryDelay: connectors.RetryAfter(err),
		})
	}
	return t.Evidence.Append(ctx, in.Cascade.Tenant, t.record("block", string(answer.Outcome), answer.Detail))
}
