package activities

import (
	"context"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities/connectors"
)

// NotifyInput is a notification and the connector that delivers it.
type NotifyInput struct {
	Connector    string                  `json:"connector"`
	Key          string                  `json:"key"`
	Notification connectors.Notification `json:"notification"`
}

// MovesInput identifies an event, the connector that is notified of its entitlement
// changes, page by page, and the next page.
type MovesInput struct {
	Connector    string                  `json:"connector"`
	Key          string                  `json:"key"`
	Notification connectors.Notification `json:"notification"`
	After        uuid.UUID               `json:"after"`
}

const (
	// movesPage is the number of principals per notification, movesPages the number of
	// notifications per attempt.
	movesPage, movesPages = 200, 10
)

// NotifyMoves notifies a platform of the entitlements that principals gained and lost by
// an event. It returns the last principal of the pages sent, or zero if none is left. The
// changes do not enter a history, whose size is limited.
func (a *Activities) NotifyMoves(ctx context.Context, in MovesInput) (after uuid.UUID, err error) {
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	n := in.Notification
	after = in.After
	for range movesPages {
		if n.Entitlements, err = a.Entitlements.ChangesBy(ctx, n.Tenant, n.Event, after, movesPage); err != nil {
			return after, err
		}
		if len(n.Entitlements) == 0 {
			return uuid.Nil, nil
		}
		key := in.Key + "/" + after.String()
		if err := a.notify(ctx, NotifyInput{Connector: in.Connector, Key: key, Notification: n}); err != nil {
			return after, err
		}
		after = n.Entitlements[len(n.Entitlements)-1].Principal
	}
	return after, nil
}

// Notify notifies a platform of a lifecycle change, at least once.
func (a *Activities) Notify(ctx context.Context, in NotifyInput) (Done, error) {
	return Done{}, a.notify(ctx, in)
}

func (a *Activities) notify(ctx context.Context, in NotifyInput) error {
	entry, ok := a.Connectors[in.Connector]
	notifier, can := connectors.As[connectors.Notifier](entry.Connector)
	if !ok || !can {
		return temporal.NewNonRetryableApplicationError(
			"connector "+in.Connector+" is not configured in this worker, or cannot notify", ErrorPermanent, nil)
	}
	if err := a.checkPaused(ctx, in.Connector); err != nil {
		return err
	}
	in.Notification.Key = in.Key
	err := notifier.Notify(ctx, in.Notification)
	switch {
	case err == nil:
		return nil
	case connectors.IsPermanent(err):
		return temporal.NewNonRetryableApplicationError(err.Error(), ErrorPermanent, nil)
	}
	return retryable(err.Error(), ErrorDownstream, connectors.RetryAfter(err))
}
