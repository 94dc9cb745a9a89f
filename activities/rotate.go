package activities

import (
	"context"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Rotate puts a new secret in the place of a shared credential's, so that it
// ends for the leaver and goes on for its other holders. The new secret is
// stored before anything changes downstream, and proven to work before the old
// one is given up: a crash anywhere leaves one that works.
func (a *Activities) Rotate(ctx context.Context, in ItemInput) (ItemResult, error) {
	result, err := a.try(ctx, in, "rotate", func(ctx context.Context, t *attempt) (connectors.Answer, error) {
		rotator, ok := t.connector.(connectors.Rotator)
		if !ok {
			return connectors.Answer{}, incapable("rotate")
		}
		pending, err := a.Inventory.Pend(ctx, in.Cascade.Tenant, in.Item)
		if err != nil {
			return connectors.Answer{}, err
		}
		t.target.NewSecret = pending
		answer, err := rotator.Rotate(ctx, t.target)
		if err != nil || answer.Outcome == connectors.Gone {
			return answer, err
		}
		return answer, t.proveNew(ctx)
	})
	if err != nil {
		return result, err
	}
	return result, a.Inventory.Promote(ctx, in.Cascade.Tenant, in.Item)
}

// proveNew shows that the new secret works, where the connector can tell.
func (t *attempt) proveNew(ctx context.Context) error {
	verifier, ok := t.connector.(connectors.Verifier)
	if !ok {
		return nil
	}
	fresh := t.target
	fresh.Secret = t.target.NewSecret
	vitality, detail, err := verifier.Probe(ctx, fresh)
	if err != nil {
		return err
	}
	if vitality == connectors.Dead {
		return connectors.Retryable("the new secret does not work yet: %s", detail)
	}
	return t.Evidence.Append(ctx, t.in.Cascade.Tenant, t.record("probe-new", string(vitality), detail))
}
