package activities

import (
	"context"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Cancel ends a scheduled run and the executions that it started, and verifies the end.
func (a *Activities) Cancel(ctx context.Context, in ItemInput) (ItemResult, error) {
	return a.alone(ctx, in, "cancel", cancel)
}

func cancel(ctx context.Context, t *attempt) (connectors.Answer, error) {
	canceller, ok := connectors.As[connectors.Canceller](t.connector)
	if !ok {
		return connectors.Answer{}, incapable("cancel")
	}
	return canceller.Cancel(ctx, t.target)
}
