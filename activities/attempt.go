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
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/internal/tracing"
)

// The types of the errors that activities return, as Temporal shows them.
const (
	ErrorPermanent  = "Permanent"  // not retried: an operator has to act
	ErrorDownstream = "Downstream" // retried: the downstream failed, or could not be reached
	ErrorStillAlive = "StillAlive" // retried: the downstream confirmed the end, but a probe saw the item alive
	ErrorPaused     = "Paused"     // retried without a deadline: operators paused the connector
	ErrorBusy       = "Busy"       // retried: another attempt holds the account's lease
	ErrorForeign    = "Foreign"    // not retried, and nothing is concluded: the item belongs to another cascade
)

// heartbeatEvery is the interval of heartbeats. It is well below the workflow's heartbeat
// timeout, after which the attempt of a killed worker is retried.
const heartbeatEvery = 3 * time.Second

const (
	// minLease is the minimum duration of a lease. Other attempts wait that long after a crash.
	minLease = time.Minute
	// leaseSlack is added to the attempt's remaining time to give the duration of its lease.
	leaseSlack = 15 * time.Second
	// busyRetry is the delay before an attempt retries to acquire a lease.
	busyRetry = 2 * time.Second
)

// pausedRetry is the delay before an attempt checks again whether its connector is paused.
const pausedRetry = 5 * time.Second

// recordTimeout bounds the recording of an attempt whose context has expired.
const recordTimeout = 5 * time.Second

// ItemInput names an item and the cascade that ends it.
type ItemInput struct {
	Cascade CascadeRef `json:"cascade"`
	Item    uuid.UUID  `json:"item"`
}

// ItemResult is the state of an item after an attempt.
type ItemResult struct {
	State  credential.State `json:"state"`
	Detail string           `json:"detail,omitempty"`
}

// attempt is one attempt to end one item: probe, act, probe again. Each step stores a
// row of evidence, since Temporal's history keeps only the last attempt.
type attempt struct {
	*Activities
	in        ItemInput
	item      *credential.Opened
	entry     registry.Entry
	connector connectors.Connector
	target    connectors.Target
	info      activity.Info
	lease     credential.Attempt
	concluded bool                 // and so without a lease
	rotation  *credential.Rotation // that the attempt is at
	// joined: another cascade has rotated the account, so its control counts.
	joined bool
}

// errUnconfigured is the error of an item whose connector is not configured in this worker.
var errUnconfigured = connectors.Permanent(
	"the connector is not in leaver.yaml of this worker: add it, restart the worker, and re-run the cascade")

// verb ends an item at its downstream.
type verb func(ctx context.Context, t *attempt) (connectors.Answer, error)

// alone runs one attempt at one item, with heartbeats.
func (a *Activities) alone(ctx context.Context, in ItemInput, step string, end verb) (ItemResult, error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	return a.try(ctx, in, step, end)
}

// try runs one attempt with the given verb.
func (a *Activities) try(ctx context.Context, in ItemInput, step string, end verb) (ItemResult, error) {
	t, result, err := a.ready(ctx, in, step)
	if t == nil {
		return result, err
	}
	defer t.yield(ctx)
	release, err := t.slot(ctx, step)
	if err != nil {
		return ItemResult{}, err
	}
	defer release()
	settled, err := t.control(ctx)
	switch {
	case err != nil:
		return ItemResult{}, err
	case settled != nil:
		return t.verify(ctx, *settled)
	}
	answer, err := end(ctx, t)
	return t.finish(ctx, step, answer, err)
}

// ready begins an attempt up to its first request: it holds the lease, and the connector may act on the item. The
// attempt is nil if it is not to be made; then the result or the error says why.
func (a *Activities) ready(ctx context.Context, in ItemInput, step string) (*attempt, ItemResult, error) {
	t, err := a.begin(ctx, in)
	if err != nil {
		return nil, ItemResult{}, err
	}
	if t.item.State.Ended() { // by another cascade, or by an attempt whose result was lost
		return nil, ItemResult{State: t.item.State, Detail: t.item.Reason}, nil
	}
	err = a.checkPaused(ctx, t.item.Connector)
	switch {
	case err != nil:
	case t.connector == nil:
		err = t.fail(ctx, step, errUnconfigured)
	case !t.entry.Covers("", t.target.Account):
		err = t.fail(ctx, step, connectors.Permanent("the reference matches none of the connector's "+
			"references patterns in leaver.yaml: correct the patterns, restart the worker, and re-run the cascade"))
	}
	if err != nil {
		t.yield(ctx)
		return nil, ItemResult{}, err
	}
	return t, ItemResult{}, nil
}

// slot waits for a free slot of the connector.
func (t *attempt) slot(ctx context.Context, step string) (release func(), err error) {
	if release, err = t.entry.Acquire(ctx); err != nil {
		return nil, t.fail(ctx, step, connectors.Retryable("the connector has no free slot: %w", err))
	}
	return release, nil
}

// control probes the item before its end. settled is the confirmation of an earlier attempt which that probe shows to
// have taken effect since.
func (t *attempt) control(ctx context.Context) (settled *evidence.Record, err error) {
	before, failed, err := t.probeBefore(ctx)
	if err == nil {
		err = t.throttled(failed)
	}
	if err != nil {
		return nil, err
	}
	return t.settled(ctx, before)
}

// finish concludes the item by the answer to its end, after a probe.
func (t *attempt) finish(ctx context.Context, step string, answer connectors.Answer, err error) (ItemResult, error) {
	if IsPaused(err) {
		return ItemResult{}, err
	}
	if err != nil {
		return ItemResult{}, t.fail(ctx, step, err)
	}
	done := t.record(step, string(answer.Outcome), answer.Detail)
	if answer.Outcome == connectors.Expires {
		if err := t.mayExpire(time.Now()); err != nil {
			return ItemResult{}, t.fail(ctx, step, err)
		}
		return t.conclude(ctx, credential.Expiring, answer.Detail, done)
	}
	return t.verify(ctx, done)
}

// maxExpiry is the longest remaining lifetime of a credential that is left to expire.
const maxExpiry = 24 * time.Hour

// mayExpire returns a permanent error unless the credential is of a renewable kind and
// expires within [maxExpiry].
func (t *attempt) mayExpire(now time.Time) error {
	until := t.item.ExpiresAt
	switch {
	case !t.item.Kind.Renewable():
		return connectors.Permanent("the downstream reports that the credential expires by itself, "+
			"which is not accepted for kind %s: end it manually", t.item.Kind)
	case until == nil:
		return connectors.Permanent("the downstream reports that the credential expires by itself, " +
			"but no expiry is registered: end it manually")
	case until.After(now.Add(maxExpiry)):
		return connectors.Permanent("the downstream reports that the credential expires by itself, "+
			"but its expiry %s is more than %s away: end it manually", until.UTC().Format(time.RFC3339), maxExpiry)
	}
	return nil
}

// begin takes the lease on an item's account and then reads the item. The attempt's connector
// is nil if no connector of that name is configured in this worker.
func (a *Activities) begin(ctx context.Context, in ItemInput) (*attempt, error) {
	lease := attemptOf(ctx, in)
	item, err := a.Credentials.OpenLeased(ctx, in.Cascade.Tenant, lease)
	switch {
	case errors.Is(err, credential.ErrBusy):
		return nil, retryable(err.Error(), ErrorBusy, busyRetry)
	case errors.Is(err, credential.ErrForeign):
		return nil, temporal.NewApplicationErrorWithOptions(
			err.Error(), ErrorForeign, temporal.ApplicationErrorOptions{NonRetryable: true},
		)
	case err != nil:
		return nil, err
	}
	return a.attemptAt(ctx, in, item, lease), nil
}

// attemptAt returns the attempt at an item whose account it holds the lease on.
func (a *Activities) attemptAt(
	ctx context.Context, in ItemInput, item *credential.Opened, lease credential.Attempt,
) *attempt {
	tracing.Connector(ctx, item.Connector)
	entry := a.Connectors[item.Connector]
	t := &attempt{
		Activities: a, in: in, item: item, info: activity.GetInfo(ctx), lease: lease, entry: entry,
		connector: entry.Connector,
	}
	t.target = t.targetOf(item)
	t.target.Fence = t.checkLease
	return t
}

// attemptOf returns the identity of this attempt at an item, and the duration of its lease.
func attemptOf(ctx context.Context, in ItemInput) credential.Attempt {
	info := activity.GetInfo(ctx)
	return credential.Attempt{
		Event: in.Cascade.Event, Item: in.Item, Holder: uuid.New(), Workflow: info.WorkflowExecution.ID,
		Run: info.WorkflowExecution.RunID, Activity: info.ActivityID,
		Number: int(info.Attempt), Started: info.StartedTime,
		Lease: max(minLease, time.Until(info.Deadline)+leaseSlack),
	}
}

// targetOf returns the target that describes an item to its connector.
func (t *attempt) targetOf(item *credential.Opened) connectors.Target {
	target := connectors.Target{
		Tenant: t.in.Cascade.Tenant, Item: item.ID, Principal: item.Principal, Kind: item.Kind,
		Reference: item.Reference,
		Account:   cmp.Or(item.Account, item.Reference), Secret: item.Secret, ExpiresAt: item.ExpiresAt,
		Key: t.in.Cascade.Event.String() + "/" + item.ID.String(),
	}
	if item.Agent != nil {
		target.Agent = *item.Agent
	}
	return target
}

// checkLease returns a retryable error if a later attempt has taken over the account's lease.
func (t *attempt) checkLease(ctx context.Context) error {
	if err := t.Credentials.CheckLease(ctx, t.in.Cascade.Tenant, t.lease.Holder); err != nil {
		return connectors.Retryable("%w", err)
	}
	return nil
}

// yield releases the attempt's lease, unless the item is concluded. A lease that cannot
// be released expires.
func (t *attempt) yield(ctx context.Context) {
	if t.concluded {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := t.Credentials.Yield(ctx, t.in.Cascade.Tenant, t.lease.Holder); err != nil {
		activity.GetLogger(ctx).Warn("failed to release lease; it will expire", "item", t.in.Item, "error", err)
	}
}

// IsPaused reports whether err says that the attempt's connector was paused.
func IsPaused(err error) bool {
	var application *temporal.ApplicationError
	return errors.As(err, &application) && application.Type() == ErrorPaused
}

// checkPaused returns a retryable error while the connector is paused.
func (a *Activities) checkPaused(ctx context.Context, connector string) error {
	pause, err := a.Pauses.Of(ctx, connector)
	if err != nil || pause == nil {
		return err
	}
	return retryable("the connector "+connector+" is paused: "+pause.Reason, ErrorPaused, pausedRetry)
}

// retryable returns an error that is retried, after a delay if it is not 0. It is expected:
// the SDK logs it at DEBUG, and `leaver cascade show` prints it.
func retryable(reason, kind string, after time.Duration) error {
	return temporal.NewApplicationErrorWithOptions(reason, kind, temporal.ApplicationErrorOptions{
		NextRetryDelay: after, Category: temporal.ApplicationErrorCategoryBenign,
	})
}

// fail records an error as evidence, concludes the item as a survivor if the error is
// permanent, and returns it as a Temporal application error.
func (t *attempt) fail(ctx context.Context, step string, err error) error {
	reason := t.scrub(err.Error())
	// Record the error even if the attempt's context has expired.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if connectors.IsPermanent(err) {
		if _, err := t.conclude(ctx, credential.Failed, reason, t.record(step, string(refused), reason)); err != nil {
			return err
		}
		return temporal.NewApplicationErrorWithOptions(
			reason, ErrorPermanent, temporal.ApplicationErrorOptions{NonRetryable: true},
		)
	}
	if err := t.Evidence.Append(ctx, t.in.Cascade.Tenant, t.record(step, "failed", reason)); err != nil {
		return err
	}
	return retryable(reason, ErrorDownstream, connectors.RetryAfter(err))
}

func (t *attempt) conclude(
	ctx context.Context, state credential.State, reason string, records ...evidence.Record,
) (ItemResult, error) {
	err := t.Credentials.Conclude(ctx, t.in.Cascade.Tenant, t.lease, t.item, state, reason, records...)
	if errors.Is(err, credential.ErrLeaseLost) {
		return ItemResult{}, retryable(err.Error(), ErrorBusy, busyRetry)
	}
	t.concluded = err == nil
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

// scrub redacts the item's secrets in a text that may contain a downstream's output.
func (t *attempt) scrub(text string) string {
	for _, secret := range []connectors.Secret{t.target.Secret, t.target.NewSecret} {
		if plain := secret.Reveal(); plain != "" {
			text = strings.ReplaceAll(text, plain, secret.String())
			text = strings.ReplaceAll(text, url.QueryEscape(plain), secret.String())
		}
	}
	return text
}

// heartbeat calls beat every [heartbeatEvery] until stop is called or ctx is done.
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

// incapable returns the permanent error of a connector that lacks a capability.
func incapable(verb string) error {
	return connectors.Permanent("the connector does not support %s for this credential: end it manually", verb)
}
