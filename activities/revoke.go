package activities

import (
	"context"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
)

// Revoke ends a credential at its downstream, and verifies the end.
func (a *Activities) Revoke(ctx context.Context, in ItemInput) (ItemResult, error) {
	return a.endAccount(ctx, in, "revoke")
}

func revoke(ctx context.Context, t *attempt) (connectors.Answer, error) {
	revoker, ok := connectors.As[connectors.Revoker](t.connector)
	if !ok {
		return connectors.Answer{}, incapable("revoke")
	}
	if answer, joined, err := t.beforeRevoke(ctx, revoker); err != nil || joined {
		return answer, err
	}
	return revoker.Revoke(ctx, t.target)
}

// beforeRevoke ends what an unfinished rotation of an account has left. joined is true if another cascade has rotated
// the account: then nothing is left to revoke.
func (t *attempt) beforeRevoke(
	ctx context.Context, revoker connectors.Revoker,
) (answer connectors.Answer, joined bool, err error) {
	if !t.item.Kind.IsAccount() {
		return connectors.Answer{}, false, nil
	}
	if answer, joined, err = t.join(ctx); err != nil || joined {
		return answer, joined, err
	}
	return connectors.Answer{}, false, t.revokeSuccessor(ctx, revoker)
}

// revokeSuccessor revokes the successor that an unfinished rotation of the account has
// created. Its intended holders have left since, so that it would be orphaned.
func (t *attempt) revokeSuccessor(ctx context.Context, revoker connectors.Revoker) error {
	rotation, err := t.Credentials.OpenRotation(ctx, t.in.Cascade.Tenant, &t.item.Item)
	if err != nil || rotation == nil {
		return err
	}
	answer := connectors.Answer{Outcome: connectors.Gone, Detail: "the rotation created no successor"}
	if _, ok := connectors.As[connectors.Generator](t.connector); ok {
		answer = connectors.Answer{
			Outcome: connectors.Outcome(connectors.Unknown),
			Detail:  "no successor is known; one whose creation was not confirmed may exist: list the account's secrets",
		}
	}
	if rotation.NewReference != "" && rotation.NewReference != t.target.Reference {
		successor := t.target
		successor.Reference, successor.Secret = rotation.NewReference, rotation.NewSecret
		if answer, err = revoker.Revoke(ctx, successor); err != nil {
			return err
		}
	}
	return t.advance(ctx, rotation, credential.Abandoned, "revoke-new", answer)
}
