package activities

import (
	"context"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Revoke ends a credential at its downstream, and proves it.
func (a *Activities) Revoke(ctx context.Context, in ItemInput) (ItemResult, error) {
	return a.try(ctx, in, "revoke", func(ctx context.Context, t *attempt) (connectors.Answer, error) {
		revoker, ok := t.connector.(connectors.Revoker)
		if !ok {
			return connectors.Answer{}, incapable("revoke")
		}
		return revoker.Revoke(ctx, t.target)
	})
}
