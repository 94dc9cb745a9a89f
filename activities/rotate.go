package activities

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// Rotate replaces the secret of a shared account, so that the leaver loses access and the
// other holders keep it. The steps are: make the new secret, probe it, publish it, retire
// the old one, verify that it is dead. Each step is stored: after a crash, a published
// secret works, and no secret is lost.
func (a *Activities) Rotate(ctx context.Context, in ItemInput) (ItemResult, error) {
	return a.endAccount(ctx, in, "rotate")
}

// endAccount rotates an account that has other holders now, and otherwise disables it. The
// holders may have changed since the discovery.
func (a *Activities) endAccount(ctx context.Context, in ItemInput, step string) (ItemResult, error) {
	result, err := a.alone(ctx, in, step, func(ctx context.Context, t *attempt) (connectors.Answer, error) {
		if t.item.Verb == credential.Rotate {
			return rotate(ctx, t)
		}
		return revoke(ctx, t)
	})
	if err == nil {
		err = a.finishRotation(ctx, in)
	}
	return result, err
}

// finishRotation stores the new secret in the account's other items, once the item is
// concluded. It does so in a retry, too, if the previous attempt crashed before this step.
func (a *Activities) finishRotation(ctx context.Context, in ItemInput) error {
	item, err := a.Credentials.Open(ctx, in.Cascade.Tenant, in.Item)
	if err != nil {
		return err
	}
	open, err := a.Credentials.OpenRotation(ctx, in.Cascade.Tenant, &item.Item)
	if err != nil || open == nil || !open.Reached(credential.Retired) {
		return err
	}
	return a.Credentials.FinishUnder(ctx, in.Cascade.Tenant, &item.Item, attemptOf(ctx, in))
}

func rotate(ctx context.Context, t *attempt) (connectors.Answer, error) {
	rotator, ok := connectors.As[connectors.Rotator](t.connector)
	if !ok {
		return connectors.Answer{}, incapable("rotate")
	}
	if answer, joined, err := t.join(ctx); err != nil || joined {
		return answer, err
	}
	tenant := t.in.Cascade.Tenant
	proof, err := t.provePossession(ctx)
	if err != nil {
		return connectors.Answer{}, err
	}
	if !proof.goesOn { // no remaining holder has proven possession
		answer, err := revoke(ctx, t)
		if err == nil {
			err = t.Credentials.Withhold(ctx, tenant, proof.withheld)
		}
		return answer, err
	}
	publisher, err := t.publisher(ctx)
	if err != nil {
		return connectors.Answer{}, err
	}
	r, err := t.Credentials.BeginRotation(ctx, tenant, &t.item.Item, proof.proven, t.lease.Holder)
	if err != nil {
		return connectors.Answer{}, err
	}
	t.rotation = r
	answer, err := t.rotate(ctx, rotator, publisher, r)
	switch {
	case err == nil && r.Handed && r.Reached(credential.Retired):
		// The secret was published to the leaver as well: finish this rotation, and rotate again.
		if err = t.Credentials.FinishRotation(ctx, tenant, r, t.lease.Holder); err == nil {
			err = connectors.RetryableAfter(
				time.Second, "the new secret was also published to the leaver: the account is rotated again",
			)
		}
	case errors.Is(err, errNewIsDead) && time.Since(r.CreatedAt) > maxDead:
		err = errors.Join(err, t.abandon(ctx))
	case r.Step == credential.Begun && (answer.Outcome == connectors.Gone || r.NewReference == ""):
		// No successor was created.
		err = errors.Join(
			err, t.Credentials.Advance(context.WithoutCancel(ctx), tenant, r, credential.Abandoned, t.lease.Holder),
		)
	}
	return answer, err
}

// maxDead is how long a new secret that the downstream generated may stay dead, until another one is generated.
const maxDead = 10 * time.Minute

// abandon ends a new secret that stays dead, so that the next attempt begins another rotation. Nobody has it yet.
func (t *attempt) abandon(ctx context.Context) error {
	revoker, revokes := connectors.As[connectors.Revoker](t.connector)
	if _, generates := connectors.As[connectors.Generator](t.connector); !generates || !revokes {
		return nil
	}
	return t.revokeSuccessor(ctx, revoker)
}

// join reports whether another cascade's rotation has already replaced the item's secret
// without publishing the new one to its holder. Then only the verification is left.
func (t *attempt) join(ctx context.Context) (answer connectors.Answer, joined bool, err error) {
	reference, rotated, err := t.Credentials.RotatedWithout(ctx, t.in.Cascade.Tenant, &t.item.Item)
	if err != nil || !rotated {
		return connectors.Answer{}, false, err
	}
	t.joined, t.target.NewReference = true, reference
	return connectors.Answer{Outcome: connectors.Gone, Detail: "another cascade has rotated the account"}, true, nil
}

const (
	// maxCoHolders bounds how many registrations of an account are read.
	maxCoHolders = 1000
	// maxTried bounds the number of distinct secrets that are tried, the leaver's first.
	maxTried = 100
	// maxDisturbed is the number of attempts that another registration's secret can delay because it cannot be checked.
	// Otherwise a registration with a strange secret would keep the leaver's alive.
	maxDisturbed = 5
)

// proof lists the registrations of an account by whether they are proven to hold it.
type proof struct {
	proven   []uuid.UUID // nil if the connector cannot check possession
	withheld []uuid.UUID // active registrations that are not proven
	goesOn   bool        // a proven registration remains active
}

// provePossession checks which registrations of the account are proven to hold it, by a
// secret that works. A rotation publishes the new login only to those, since knowing the
// account's name must not be enough to obtain a login. It returns a permanent error if no
// registration is proven. It skips connectors that cannot check possession, and open
// rotations that have made the new secret: their proven registrations are stored, and
// later registrations were refused.
func (t *attempt) provePossession(ctx context.Context) (proof, error) {
	possession, ok := connectors.As[connectors.Possession](t.connector)
	if !ok {
		return proof{goesOn: true}, nil
	}
	open, err := t.Credentials.OpenRotation(ctx, t.in.Cascade.Tenant, &t.item.Item)
	if err != nil || open != nil && open.Reached(credential.Made) {
		return proof{goesOn: true}, err
	}
	others, err := t.Credentials.CoHolders(ctx, t.in.Cascade.Tenant, t.item.ID, maxCoHolders)
	if err != nil {
		return proof{}, err
	}
	var p proof
	tried := make(map[connectors.Secret]bool) // by secret, whether it works
	for _, candidate := range append([]credential.CoHolder{{Opened: *t.item}}, others...) {
		// Registrations with the same secret are checked once, those without a secret each.
		works, ok := tried[candidate.Secret]
		if candidate.Secret == "" || (!ok && len(tried) < maxTried) {
			if works, err = t.possesses(ctx, possession, &candidate.Opened); err != nil {
				return proof{}, err
			}
			tried[candidate.Secret] = works
		}
		switch {
		case works:
			p.proven = append(p.proven, candidate.ID)
			p.goesOn = p.goesOn || candidate.GoesOn || candidate.Shared || len(candidate.ReliedOnBy) > 0
		case candidate.GoesOn:
			p.withheld = append(p.withheld, candidate.ID)
		}
	}
	if len(p.proven) == 0 {
		return proof{}, connectors.Permanent("no registered secret works at the account, so possession is not " +
			"proven: rotate it manually, or register its current secret and re-run the cascade")
	}
	return p, nil
}

// possesses reports whether a registration is proven to hold the account, and records
// the result as evidence. An error of the check of another registration delays the rotation for [maxDisturbed]
// attempts only.
func (t *attempt) possesses(
	ctx context.Context, possession connectors.Possession, candidate *credential.Opened,
) (bool, error) {
	vitality, detail, err := possession.Possesses(ctx, t.targetOf(candidate))
	disturbs := candidate.ID != t.item.ID && t.info.Attempt > maxDisturbed
	if err != nil && !connectors.IsPermanent(err) && !disturbs {
		return false, err
	}
	if err != nil {
		vitality, detail = connectors.Unknown, err.Error()
	}
	record := t.record("prove-possession", string(vitality), "item "+candidate.ID.String()+": "+detail)
	return vitality == connectors.Alive, t.Evidence.Append(ctx, t.in.Cascade.Tenant, record)
}

// rotate continues the rotation from its stored step.
func (t *attempt) rotate(
	ctx context.Context, rotator connectors.Rotator, publisher connectors.Publisher, r *credential.Rotation,
) (connectors.Answer, error) {
	t.target.NewSecret, t.target.Rotation = r.NewSecret, r.ID
	if r.NewReference == "" {
		answer, err := t.begin(ctx, r)
		if err != nil || answer.Outcome == connectors.Gone {
			return answer, err
		}
	}
	t.target.NewReference = r.NewReference
	if !r.Reached(credential.Made) {
		answer, err := rotator.Renew(ctx, t.target)
		if err != nil || answer.Outcome == connectors.Gone {
			return answer, err
		}
		if answer.Outcome != connectors.Done {
			return answer, connectors.Permanent(
				"unexpected outcome %q of renewing the secret, want done or gone", answer.Outcome,
			)
		}
		if err := t.advance(ctx, r, credential.Made, "make-new", answer); err != nil {
			return connectors.Answer{}, err
		}
	}
	if !r.Reached(credential.Proven) {
		answer, err := t.proveNew(ctx)
		if errors.Is(err, errNewIsDead) {
			// The downstream confirmed the new secret, but it does not work: repeat the step.
			return connectors.Answer{}, errors.Join(err, t.advance(ctx, r, credential.Begun, "probe-new", answer))
		}
		if err == nil {
			err = t.advance(ctx, r, credential.Proven, "probe-new", answer)
		}
		if err != nil {
			return connectors.Answer{}, err
		}
	}
	if !r.Reached(credential.Published) {
		answer, err := t.publish(ctx, publisher, r)
		if err == nil {
			err = t.advance(ctx, r, credential.Published, "publish", answer)
		}
		if err != nil {
			return connectors.Answer{}, err
		}
	}
	// Repeat this step even if it was done: a probe may have seen the old secret alive since.
	answer, err := rotator.Retire(ctx, t.target)
	if err != nil {
		return answer, err
	}
	return answer, t.advance(ctx, r, credential.Retired, "retire-old", answer)
}

// begin stores the reference of the new secret, and the secret if the downstream generates it. The reference of any
// other secret is stored before the secret is created, so that it is known after a crash.
func (t *attempt) begin(ctx context.Context, r *credential.Rotation) (connectors.Answer, error) {
	answer, reference := connectors.Answer{Outcome: connectors.Done}, t.target.Reference
	if renamer, ok := connectors.As[connectors.Renamer](t.connector); ok {
		reference = renamer.Successor(t.target)
	}
	if generator, ok := connectors.As[connectors.Generator](t.connector); ok {
		generated, err := generator.Generate(ctx, t.target)
		if err != nil || generated.Outcome == connectors.Gone {
			return generated.Answer, err
		}
		answer, reference, r.NewSecret = generated.Answer, generated.Reference, generated.Secret
		t.target.NewSecret = r.NewSecret
	}
	r.NewReference = reference
	return answer, t.advance(ctx, r, credential.Begun, "begin", answer)
}

func (t *attempt) advance(
	ctx context.Context, r *credential.Rotation, to credential.Step, step string, answer connectors.Answer,
) error {
	return t.Credentials.Advance(
		ctx, t.in.Cascade.Tenant, r, to, t.lease.Holder, t.record(step, string(answer.Outcome), answer.Detail),
	)
}

// remake resets the attempt's rotation to its first step, because a probe saw the old
// secret alive after every step was confirmed. The new secret of a Generator stays: the
// downstream may have ended the old one with a delay, so that it proves no possession now.
func (t *attempt) remake(ctx context.Context) error {
	if t.rotation == nil {
		return nil
	}
	to := credential.Begun
	if _, ok := connectors.As[connectors.Generator](t.connector); ok {
		to = credential.Published
	}
	return t.Credentials.Advance(ctx, t.in.Cascade.Tenant, t.rotation, to, t.lease.Holder)
}

// errNewIsDead is returned when a new secret that the downstream confirmed does not work.
var errNewIsDead = errors.New("the new secret does not work yet")

// proveNew probes the new secret, if the connector has a probe. One that the downstream has generated must be seen to
// work, if possession can be checked: a probe of its reference alone says nothing about the value.
func (t *attempt) proveNew(ctx context.Context) (connectors.Answer, error) {
	fresh := t.target
	fresh.Secret, fresh.Reference = t.target.NewSecret, t.target.NewReference
	possession, provable := connectors.As[connectors.Possession](t.connector)
	_, generates := connectors.As[connectors.Generator](t.connector)
	verifier, ok := connectors.As[connectors.Verifier](t.connector)
	mustLive := generates && provable
	vitality, detail, err := connectors.Unknown, "the connector has no probe", error(nil)
	switch {
	case mustLive:
		vitality, detail, err = possession.Possesses(ctx, fresh)
	case ok:
		vitality, detail, err = verifier.Probe(ctx, fresh)
	}
	if err != nil {
		return connectors.Answer{}, err
	}
	answer := connectors.Answer{Outcome: connectors.Outcome(vitality), Detail: detail}
	if vitality == connectors.Dead || mustLive && vitality != connectors.Alive {
		return answer, connectors.Retryable("%w: %s", errNewIsDead, detail)
	}
	return answer, nil
}

// publisher returns the connector that publishes the new secret to the remaining holders:
// the one in publish_to, or else the item's own connector. It returns a permanent error if
// that connector cannot publish.
func (t *attempt) publisher(ctx context.Context) (connectors.Publisher, error) {
	connector := t.connector
	if name := t.entry.PublishTo; name != "" {
		if err := t.checkPaused(ctx, name); err != nil {
			return nil, err
		}
		connector = t.Connectors[name].Connector
	}
	publisher, ok := connectors.As[connectors.Publisher](connector)
	if !ok {
		return nil, connectors.Permanent("the account is shared, but no connector can publish its new secret: " +
			"set publish_to of the connector in leaver.yaml, and re-run the cascade")
	}
	return publisher, nil
}

func (t *attempt) publish(
	ctx context.Context, publisher connectors.Publisher, r *credential.Rotation,
) (connectors.Answer, error) {
	holders, reliedOnBy, err := t.Credentials.Holders(ctx, t.in.Cascade.Tenant, t.item.ID, r)
	if err != nil {
		return connectors.Answer{}, err
	}
	if err := t.checkLease(ctx); err != nil { // a late publication would contain a dead secret
		return connectors.Answer{}, err
	}
	return publisher.Publish(ctx, connectors.Publication{
		Tenant: t.in.Cascade.Tenant, Rotation: r.ID, Sequence: r.Sequence, Connector: t.item.Connector,
		Kind:    t.item.Kind,
		Account: t.target.Account, Previous: t.item.Reference, Reference: r.NewReference, Secret: r.NewSecret,
		Holders: holders, ReliedOnBy: reliedOnBy,
	})
}
