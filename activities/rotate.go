package activities

import (
	"context"
	"errors"
	"time"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/inventory"
)

const (
	// rotationLease is how long a cascade that died keeps an account from others.
	rotationLease = 2 * time.Minute
	// rotationPoll is how soon a cascade looks whether another's rotation is over.
	rotationPoll = 2 * time.Second
)

// Rotate puts a new secret in the place of a shared account's, so that it ends
// for the leaver and goes on for its other holders: make the new one, see that
// it works, publish it, retire the old one, see that it is dead. Each step is
// stored, so a crash anywhere leaves a secret that works, and none that nobody knows.
func (a *Activities) Rotate(ctx context.Context, in ItemInput) (ItemResult, error) {
	return a.endAccount(ctx, in, "rotate")
}

// endAccount rotates an account that others rely on at this moment, and disables
// one that nobody does: who was there when it was found may be gone by now.
func (a *Activities) endAccount(ctx context.Context, in ItemInput, step string) (ItemResult, error) {
	result, err := a.alone(ctx, in, step, func(ctx context.Context, t *attempt) (connectors.Answer, error) {
		if t.item.Rotates {
			return rotate(ctx, t)
		}
		return revoke(ctx, t)
	})
	if err == nil {
		err = a.finishRotation(ctx, in)
	}
	return result, err
}

// finishRotation hands the account's remaining rows the new secret, once the
// item is concluded. An attempt that died before it left the rotation open.
func (a *Activities) finishRotation(ctx context.Context, in ItemInput) error {
	item, err := a.Inventory.Open(ctx, in.Cascade.Tenant, in.Item)
	if err != nil {
		return err
	}
	rotation, err := a.Inventory.OpenRotation(ctx, in.Cascade.Tenant, &item.Item)
	if err != nil || rotation == nil || !rotation.Reached(inventory.Retired) {
		return err
	}
	by := leaseHolder(in)
	if err := a.Inventory.TakeRotation(ctx, in.Cascade.Tenant, rotation, by, rotationLease); errors.Is(err, inventory.ErrRotating) {
		return nil // whoever has it finishes it
	} else if err != nil {
		return err
	}
	return a.Inventory.FinishRotation(ctx, in.Cascade.Tenant, rotation, by)
}

func leaseHolder(in ItemInput) string { return in.Cascade.Event.String() + "/" + in.Item.String() }

func (t *attempt) by() string { return leaseHolder(t.in) }

func rotate(ctx context.Context, t *attempt) (connectors.Answer, error) {
	rotator, ok := t.connector.(connectors.Rotator)
	if !ok {
		return connectors.Answer{}, incapable("rotate")
	}
	tenant := t.in.Cascade.Tenant
	switch reference, rotated, err := t.Inventory.RotatedWithout(ctx, tenant, &t.item.Item); {
	case err != nil:
		return connectors.Answer{}, err
	case rotated:
		t.joined, t.target.NewReference = true, reference
		return connectors.Answer{Outcome: connectors.Gone, Detail: "another cascade has rotated the account"}, nil
	}
	publisher, err := t.publisher(ctx)
	if err != nil {
		return connectors.Answer{}, err
	}
	r, err := t.Inventory.BeginRotation(ctx, tenant, &t.item.Item, t.by(), rotationLease)
	if errors.Is(err, inventory.ErrRotating) {
		return connectors.Answer{}, connectors.RetryableAfter(rotationPoll, "%w", err)
	}
	if err != nil {
		return connectors.Answer{}, err
	}
	// What was looked at before the lease may be another's by now.
	if err := t.unchanged(ctx); err != nil {
		return connectors.Answer{}, errors.Join(err, t.yield(ctx, r))
	}
	answer, err := t.rotate(ctx, rotator, publisher, r)
	if err == nil && r.Handed && r.Reached(inventory.Retired) {
		// It was for the leaver, too: once it is over, the account is rotated again.
		if err = t.Inventory.FinishRotation(ctx, tenant, r, t.by()); err == nil {
			err = connectors.RetryableAfter(time.Second, "the leaver was handed a new secret before: the account is rotated again")
		}
		return answer, err
	}
	if err != nil {
		if yieldErr := t.yield(ctx, r); yieldErr != nil {
			return answer, errors.Join(err, yieldErr)
		}
	}
	return answer, err
}

// yield lets others have the account; a rotation that has made nothing yet is none.
func (t *attempt) yield(ctx context.Context, r *inventory.Rotation) error {
	ctx = context.WithoutCancel(ctx)
	if r.Step == inventory.Begun && r.NewReference == "" {
		return t.Inventory.Advance(ctx, t.in.Cascade.Tenant, r, inventory.Abandoned, t.by())
	}
	return t.Inventory.Yield(ctx, t.in.Cascade.Tenant, r, t.by())
}

// unchanged makes sure, under the lease, that the account is still the one that
// the attempt began with, and still to be rotated by it.
func (t *attempt) unchanged(ctx context.Context) error {
	now, err := t.Inventory.Open(ctx, t.in.Cascade.Tenant, t.item.ID)
	if err != nil {
		return err
	}
	_, rotated, err := t.Inventory.RotatedWithout(ctx, t.in.Cascade.Tenant, &now.Item)
	switch {
	case err != nil:
		return err
	case rotated || now.Reference != t.item.Reference || now.Secret != t.item.Secret || !now.Rotates:
		return connectors.RetryableAfter(time.Second, "%w", inventory.ErrChanged)
	}
	return nil
}

// rotate goes on from wherever the rotation has come to.
func (t *attempt) rotate(ctx context.Context, rotator connectors.Rotator, publisher connectors.Publisher, r *inventory.Rotation) (connectors.Answer, error) {
	t.target.NewSecret, t.target.Rotation = r.NewSecret, r.ID
	if r.NewReference == "" {
		// Stored before anything is made there, lest a crash leave it unknown.
		r.NewReference = rotator.Successor(t.target)
		if err := t.advance(ctx, r, inventory.Begun, "begin", connectors.Answer{Outcome: connectors.Done}); err != nil {
			return connectors.Answer{}, err
		}
	}
	t.target.NewReference = r.NewReference
	if !r.Reached(inventory.Made) {
		answer, err := rotator.Renew(ctx, t.target)
		if err != nil || answer.Outcome == connectors.Gone {
			return answer, err
		}
		if answer.Outcome != connectors.Done {
			return answer, connectors.Permanent("the downstream answered %q to a new secret", answer.Outcome)
		}
		if err := t.advance(ctx, r, inventory.Made, "make-new", answer); err != nil {
			return connectors.Answer{}, err
		}
	}
	if !r.Reached(inventory.Proven) {
		answer, err := t.proveNew(ctx)
		if err == nil {
			err = t.advance(ctx, r, inventory.Proven, "probe-new", answer)
		}
		if err != nil {
			return connectors.Answer{}, err
		}
	}
	if !r.Reached(inventory.Published) {
		answer, err := t.publish(ctx, publisher, r)
		if err == nil {
			err = t.advance(ctx, r, inventory.Published, "publish", answer)
		}
		if err != nil {
			return connectors.Answer{}, err
		}
	}
	// Repeated even where it was done: a probe may have seen the old one alive since.
	answer, err := rotator.Retire(ctx, t.target)
	if err != nil {
		return answer, err
	}
	return answer, t.advance(ctx, r, inventory.Retired, "retire-old", answer)
}

func (t *attempt) advance(ctx context.Context, r *inventory.Rotation, to inventory.Step, step string, answer connectors.Answer) error {
	return t.Inventory.Advance(ctx, t.in.Cascade.Tenant, r, to, t.by(), t.record(step, string(answer.Outcome), answer.Detail))
}

// proveNew shows that the new secret works, where the connector can tell.
func (t *attempt) proveNew(ctx context.Context) (connectors.Answer, error) {
	verifier, ok := t.connector.(connectors.Verifier)
	if !ok {
		return connectors.Answer{Outcome: connectors.Outcome(connectors.Unknown), Detail: "the connector has no probe"}, nil
	}
	fresh := t.target
	fresh.Secret, fresh.Reference = t.target.NewSecret, t.target.NewReference
	vitality, detail, err := verifier.Probe(ctx, fresh)
	if err != nil {
		return connectors.Answer{}, err
	}
	if vitality == connectors.Dead {
		return connectors.Answer{}, connectors.Retryable("the new secret does not work yet: %s", detail)
	}
	return connectors.Answer{Outcome: connectors.Outcome(vitality), Detail: detail}, nil
}

// publisher is who hands the new secret to the remaining holders: the connector
// that the configuration names, or the downstream itself where it is one.
func (t *attempt) publisher(ctx context.Context) (connectors.Publisher, error) {
	connector := t.connector
	if name := t.entry.PublishTo; name != "" {
		if err := t.heldUp(ctx, name); err != nil {
			return nil, err
		}
		connector = t.Connectors[name].Connector
	}
	publisher, ok := connector.(connectors.Publisher)
	if !ok {
		return nil, connectors.Permanent("others rely on the account, and nobody can hand them a new secret: set publish_to at the connector")
	}
	return publisher, nil
}

func (t *attempt) publish(ctx context.Context, publisher connectors.Publisher, r *inventory.Rotation) (connectors.Answer, error) {
	holders, reliedOnBy, err := t.Inventory.Holders(ctx, t.in.Cascade.Tenant, t.item.ID, r)
	if err != nil {
		return connectors.Answer{}, err
	}
	return publisher.Publish(ctx, connectors.Publication{
		Tenant: t.in.Cascade.Tenant, Rotation: r.ID, Connector: t.item.Connector, Kind: t.item.Kind,
		Account: t.target.Account, Previous: t.item.Reference, Reference: r.NewReference, Secret: r.NewSecret,
		Holders: holders, ReliedOnBy: reliedOnBy,
	})
}
