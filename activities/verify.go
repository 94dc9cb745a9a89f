package activities

import (
	"context"
	"time"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/evidence"
)

// probeBefore is the positive control: a probe that sees the item dead proves nothing
// unless an earlier one saw it alive (I6). A failed probe does not stop the attempt.
func (t *attempt) probeBefore(ctx context.Context) (before evidence.Record, failed, err error) {
	verifier, ok := connectors.As[connectors.Verifier](t.connector)
	if !ok {
		return evidence.Record{}, nil, nil
	}
	before, failed = t.probe(ctx, verifier.Probe, "probe-before")
	return before, failed, t.Evidence.Append(ctx, t.in.Cascade.Tenant, before)
}

// settled returns a record of an earlier attempt's confirmed end if the probe before this one shows that it has taken
// effect since. If it has not, while the downstream may still need time, it returns a retryable error: another request
// would change nothing. After that time the end is requested again, whatever the probe shows.
func (t *attempt) settled(ctx context.Context, before evidence.Record) (*evidence.Record, error) {
	settler, ok := connectors.As[connectors.Settler](t.connector)
	if !ok || settler.Settles() == 0 {
		return nil, nil //nolint:nilnil // nothing is to be waited for
	}
	confirmed, err := t.Evidence.Confirmed(ctx, t.in.Cascade.Tenant, t.in.Item, t.in.Cascade.Event)
	if err != nil || confirmed == nil || time.Since(*confirmed) >= settler.Settles() {
		return nil, err
	}
	switch before.Outcome {
	case string(connectors.Dead):
		done := t.record("settle", string(connectors.Done), "confirmed at "+confirmed.UTC().Format(time.RFC3339))
		return &done, nil
	case string(connectors.Alive):
		return nil, retryable("the downstream has confirmed the end, which takes up to "+settler.Settles().String()+
			" to take effect, and the credential is still alive", ErrorStillAlive, 0)
	}
	return nil, nil //nolint:nilnil // it is to be requested again
}

const (
	// maxThrottled is the number of attempts that a throttled probe may delay.
	maxThrottled = 3
	// maxThrottle bounds each delay: a revocation must not wait for its proof.
	maxThrottle = time.Minute
)

// throttled returns a retryable error if the downstream throttled the probe before the
// end, for up to [maxThrottled] attempts.
func (t *attempt) throttled(failed error) error {
	after := connectors.RetryAfter(failed)
	if after == 0 || t.info.Attempt > maxThrottled {
		return nil
	}
	return retryable(
		"the probe before the revocation was throttled: "+t.scrub(failed.Error()), ErrorDownstream,
		min(after, maxThrottle),
	)
}

type probe func(context.Context, connectors.Target) (connectors.Vitality, string, error)

// probe calls run, and returns its result or error as an evidence record.
func (t *attempt) probe(ctx context.Context, run probe, step string) (evidence.Record, error) {
	vitality, detail, err := run(ctx, t.target)
	if err != nil && vitality != connectors.Alive {
		return t.record(step, string(connectors.Unknown), err.Error()), err
	}
	if err != nil {
		return t.record(step, string(vitality), err.Error()), err
	}
	return t.record(step, string(vitality), detail), nil
}

// maxFailedProbes is the number of transient probe failures after a confirmed end at which
// the item is concluded without a proof.
const maxFailedProbes = 5

// verify probes after the downstream confirmed the end. If the probe sees the item alive,
// the confirmation is false or not effective yet: the attempt fails, and the next one acts
// again.
func (t *attempt) verify(ctx context.Context, done evidence.Record) (ItemResult, error) {
	verifier, ok := connectors.As[connectors.Verifier](t.connector)
	if !ok {
		return t.concludeUnverified(ctx, "the connector has no probe", done)
	}
	run := verifier.Probe
	if prover, ok := connectors.As[connectors.Prover](t.connector); ok {
		run = prover.Prove
	}
	after, err := t.probe(ctx, run, "probe-after")
	if err != nil && after.Outcome == string(connectors.Alive) {
		// The item is alive, and the probe's error decides whether to retry.
		if err := t.Evidence.Append(ctx, t.in.Cascade.Tenant, done); err != nil {
			return ItemResult{}, err
		}
		return ItemResult{}, t.fail(ctx, "probe-after", err)
	}
	if after.Outcome != string(connectors.Alive) && after.Outcome != string(connectors.Dead) {
		return t.unproven(ctx, done, after, err)
	}
	switch connectors.Vitality(after.Outcome) {
	case connectors.Alive:
		reason := "the downstream confirmed the end, but a probe still saw the credential alive: " + after.Detail
		if err := t.Evidence.Append(ctx, t.in.Cascade.Tenant, done, after); err != nil {
			return ItemResult{}, err
		}
		if err := t.remake(ctx); err != nil {
			return ItemResult{}, err
		}
		return ItemResult{}, retryable(reason, ErrorStillAlive, 0)
	case connectors.Dead:
		controlled, err := t.Evidence.SawAlive(ctx, t.in.Cascade.Tenant, t.in.Item, t.in.Cascade.Event, t.joined)
		if err != nil {
			return ItemResult{}, err
		}
		if controlled {
			return t.conclude(ctx, credential.Verified, "", done, after)
		}
		return t.concludeUnverified(ctx, "no earlier probe had seen the credential alive", done, after)
	default:
		return t.unproven(ctx, done, after, nil)
	}
}

// concludeUnverified concludes an item whose end is not verified as revoked. If the
// downstream did not know the item at the first act, and no probe saw it alive, it is
// absent: its reference may be misspelt, and the intended credential alive.
func (t *attempt) concludeUnverified(
	ctx context.Context, reason string, done evidence.Record, others ...evidence.Record,
) (ItemResult, error) {
	records := append([]evidence.Record{done}, others...)
	if done.Outcome == string(connectors.Gone) && t.info.Attempt == 1 {
		tenant, item, event := t.in.Cascade.Tenant, t.in.Item, t.in.Cascade.Event
		acted, err := t.Evidence.Acted(ctx, tenant, item, event)
		if err != nil {
			return ItemResult{}, err
		}
		seen, err := t.Evidence.SawAlive(ctx, tenant, item, event, t.joined)
		if err != nil {
			return ItemResult{}, err
		}
		if !acted && !seen {
			return t.conclude(
				ctx, credential.Absent, "the downstream knows no such credential: check the reference", records...,
			)
		}
	}
	return t.conclude(ctx, credential.Revoked, "unverified: "+reason, records...)
}

// unproven concludes or retries an item whose end the downstream confirmed and no probe
// verified. Transient probe failures are retried up to [maxFailedProbes] times. An item that
// a probe of the cascade saw alive after a confirmed end is never concluded as revoked.
func (t *attempt) unproven(ctx context.Context, done, after evidence.Record, failed error) (ItemResult, error) {
	probes, err := t.Evidence.ProbesAfter(ctx, t.in.Cascade.Tenant, t.in.Item, t.in.Cascade.Event)
	if err != nil {
		return ItemResult{}, err
	}
	repeat := failed != nil && !connectors.IsPermanent(failed) && probes.Failed+1 < maxFailedProbes
	if !repeat && !probes.Alive {
		return t.concludeUnverified(ctx, after.Detail, done, after)
	}
	if err := t.Evidence.Append(ctx, t.in.Cascade.Tenant, done, after); err != nil {
		return ItemResult{}, err
	}
	reason := "the downstream confirmed the end, but no probe could verify it: " + after.Detail
	if probes.Alive {
		reason = "the downstream confirmed the end, a later probe saw the credential alive, " +
			"and the last probe was inconclusive: " + after.Detail
	}
	return ItemResult{}, retryable(reason, ErrorDownstream, connectors.RetryAfter(failed))
}
