package activities

import (
	"context"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities/connectors"
)

// NotifyInput is a notification and the connector that is to deliver it.
type NotifyInput struct {
	Connector    string                  `json:"connector"`
	Key          string                  `json:"key"`
	Notification connectors.Notification `json:"notification"`
}

// MovesInput names an event whose changes of entitlements a connector is to tell, page
// by page, and where that goes on.
type MovesInput struct {
	Connector    string                  `json:"connector"`
	Key          string                  `json:"key"`
	Notification connectors.Notification `json:"notification"`
	After        uuid.UUID               `json:"after"`
}

const (
	// movesPage is of how many principals one notification tells, movesPages how many
	// of those one attempt sends.
	movesPage, movesPages = 200, 10
)

// NotifyMoves tells a platform who gained and lost what by an event, and returns the
// last principal that it told of; zero, where none is left. What is told never enters
// a history, whose size is limited.
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
		if err := a.Notify(ctx, NotifyInput{Connector: in.Connector, Key: key, Notification: n}); err != nil {
			return after, err
		}
		after = n.Entitlements[len(n.Entitlements)-1].Principal
	}
	return after, nil
}

// Notify tells a platform of a lifecycle change, at least once.
func (a *Activities) Notify(ctx context.Context, in NotifyInput) error {
	entry, ok := a.Connectors[in.Connector]
	notifier, can := entry.Connector.(connectors.Notifier)
	if !ok || !can {
		return temporal.NewNonRetryableApplicationError("no connector "+in.Connector+" that notifies is configured", ErrorPermanent, nil)
	}
	if err := a.heldUp(ctx, in.Connector); err != nil {
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
