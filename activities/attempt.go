package activities

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/inventory"
	"github.com/leaverhq/leaver/internal/seal"
)

// The types of the errors that activities return, as Temporal shows them.
const (
	ErrorPermanent  = "Permanent"  // not retried: somebody has to act
	ErrorDownstream = "Downstream" // retried: the downstream failed, or could not be reached
	ErrorStillAlive = "StillAlive" // retried: the downstream said done, and a probe saw it alive
	ErrorPaused     = "Paused"     // retried, and outside of any deadline: ops paused the connector
)

// heartbeatEvery is well inside the workflow's heartbeat timeout, so that the
// work of a killed worker is handed on within seconds.
const heartbeatEvery = 3 * time.Second

// pausedRetry is how soon a paused connector's work looks whether it may go on.
const pausedRetry = 5 * time.Second

// recordTimeout bounds the recording of an attempt whose own time is up.
const recordTimeout = 5 * time.Second

// ItemInput names an item and the cascade that ends it.
type ItemInput struct {
	Cascade CascadeRef `json:"cascade"`
	Item    uuid.UUID  `json:"item"`
}

// ItemResult is how an item stands after it was ended.
type ItemResult struct {
	State  inventory.State `json:"state"`
	Detail string          `json:"detail,omitempty"`
}

// attempt is one try at ending one item: probe, act, probe again; and a row of
// evidence for each step, since Temporal's history keeps the last attempt only.
type attempt struct {
	*Activities
	in        ItemInput
	item      *inventory.Opened
	entry     connectors.Entry
	connector connectors.Connector
	target    connectors.Target
	info      activity.Info
	// joined: another cascade has rotated the account, so its control counts.
	joined bool
}

// errUnconfigured tells ops what to do about an item of a connector that is not there.
var errUnconfigured = connectors.Permanent("the connector is not in leaver.yaml of this worker: add it, restart the worker, and re-run the cascade")

// verb ends an item at its downstream.
type verb func(ctx context.Context, t *attempt) (connectors.Answer, error)

// alone is an activity that ends one item.
func (a *Activities) alone(ctx context.Context, in ItemInput, step string, end verb) (ItemResult, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	return a.try(ctx, in, step, end)
}

// try runs one attempt with the given verb.
func (a *Activities) try(ctx context.Context, in ItemInput, step string, end verb) (ItemResult, error) {
	item, err := a.Inventory.Open(ctx, in.Cascade.Tenant, in.Item)
	if err != nil {
		return ItemResult{}, err
	}
	switch item.State {
	case inventory.Revoked, inventory.Verified, inventory.Expiring, inventory.Waived, inventory.Released:
		// Ended by another cascade, or by an attempt whose answer got lost.
		return ItemResult{State: item.State, Detail: item.Reason}, nil
	default:
	}
	if err := a.heldUp(ctx, item.Connector); err != nil {
		return ItemResult{}, err
	}
	t := a.newAttempt(ctx, in, item)
	if t.connector == nil {
		return ItemResult{}, t.fail(ctx, step, errUnconfigured)
	}
	release, err := t.entry.Acquire(ctx)
	if err != nil {
		return ItemResult{}, t.fail(ctx, step, connectors.Retryable("no call to the connector was free: %w", err))
	}
	defer release()
	if err := t.probeBefore(ctx); err != nil {
		return ItemResult{}, err
	}
	answer, err := end(ctx, t)
	if IsPaused(err) {
		return ItemResult{}, err
	}
	if err != nil {
		return ItemResult{}, t.fail(ctx, step, err)
	}
	done := t.record(step, string(answer.Outcome), answer.Detail)
	if answer.Outcome == connectors.Expires && item.ExpiresAt == nil {
		return ItemResult{}, t.fail(ctx, step, connectors.Permanent("the downstream says that it expires by itself, and no expiry is known: end it by hand"))
	}
	if answer.Outcome == connectors.Expires {
		return t.conclude(ctx, inventory.Expiring, answer.Detail, done)
	}
	return t.verify(ctx, done)
}

// newAttempt is an attempt at an item. Its connector is nil where none of that
// name is configured here.
func (a *Activities) newAttempt(ctx context.Context, in ItemInput, item *inventory.Opened) *attempt {
	entry := a.Connectors[item.Connector]
	return &attempt{
		Activities: a, in: in, item: item, info: activity.GetInfo(ctx), entry: entry, connector: entry.Connector,
		target: connectors.Target{
			Tenant: in.Cascade.Tenant, Item: item.ID, Kind: item.Kind, Reference: item.Reference,
			Account: cmp.Or(item.Account, item.Reference), Secret: item.Secret, ExpiresAt: item.ExpiresAt, Key: leaseHolder(in),
		},
	}
}

// IsPaused tells whether ops had the connector paused at the attempt that err ended.
func IsPaused(err error) bool {
	var application *temporal.ApplicationError
	return errors.As(err, &application) && application.Type() == ErrorPaused
}

// heldUp says that ops have paused the connector: its work waits, and that is
// no failure of any downstream's.
func (a *Activities) heldUp(ctx context.Context, connector string) error {
	pause, err := a.Pauses.Of(ctx, connector)
	if err != nil || pause == nil {
		return err
	}
	return temporal.NewApplicationErrorWithOptions("the connector "+connector+" is paused: "+pause.Reason, ErrorPaused,
		temporal.ApplicationErrorOptions{NextRetryDelay: pausedRetry})
}

// fail records the refusal, concludes the item as a survivor where no retry
// will help, and returns the error in Temporal's terms.
func (t *attempt) fail(ctx context.Context, step string, err error) error {
	reason := t.scrub(err.Error())
	// What happened is recorded also where the attempt's own time is up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if connectors.IsPermanent(err) {
		if _, err := t.conclude(ctx, inventory.Survivor, reason, t.record(step, "refused", reason)); err != nil {
			return err
		}
		return temporal.NewApplicationErrorWithOptions(reason, ErrorPermanent, temporal.ApplicationErrorOptions{NonRetryable: true})
	}
	if err := t.Evidence.Append(ctx, t.in.Cascade.Tenant, t.record(step, "failed", reason)); err != nil {
		return err
	}
	return temporal.NewApplicationErrorWithOptions(reason, ErrorDownstream, temporal.ApplicationErrorOptions{
		NextRetryDelay: connectors.RetryAfter(err),
	})
}

func (t *attempt) conclude(ctx context.Context, state inventory.State, reason string, records ...evidence.Record) (ItemResult, error) {
	err := t.Inventory.Conclude(ctx, t.in.Cascade.Tenant, t.in.Item, t.in.Cascade.Event, t.item.Reference, state, reason, records...)
	if errors.Is(err, inventory.ErrChanged) {
		return ItemResult{}, temporal.NewApplicationErrorWithOptions(err.Error(), ErrorDownstream, temporal.ApplicationErrorOptions{NextRetryDelay: rotationPoll})
	}
	return ItemResult{State: state, Detail: reason}, err
}

func (t *attempt) record(step, outcome, detail string) evidence.Record {
	return evidence.Record{
		Item: t.in.Item, Event: t.in.Cascade.Event,
		WorkflowID: t.info.WorkflowExecution.ID, RunID: t.info.WorkflowExecution.RunID,
		ActivityID: t.info.ActivityID, Attempt: int(t.info.Attempt),
		Step: step, Outcome: outcome, Detail: t.scrub(detail), At: time.Now().UTC(),
	}
}

// scrub takes the item's secrets out of a text that a downstream had a hand in.
func (t *attempt) scrub(text string) string {
	for _, secret := range []seal.Secret{t.target.Secret, t.target.NewSecret} {
		if plain := secret.Reveal(); plain != "" {
			text = strings.ReplaceAll(text, plain, secret.String())
			text = strings.ReplaceAll(text, url.QueryEscape(plain), secret.String())
		}
	}
	return text
}

// heartbeat beats until stop is called.
func heartbeat(ctx context.Context, beat func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		ticker := time.NewTicker(heartbeatEvery)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-ticker.C:
				beat()
			}
		}
	}()
	return func() { close(done) }
}

// incapable says that the connector lacks the capability that an item needs.
func incapable(verb string) error {
	return connectors.Permanent("the connector cannot %s", verb)
}
