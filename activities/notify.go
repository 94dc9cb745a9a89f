package activities

import (
	"context"

	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities/connectors"
)

// NotifyInput is a notification and the connector that is to deliver it.
type NotifyInput struct {
	Connector    string                  `json:"connector"`
	Key          string                  `json:"key"`
	Notification connectors.Notification `json:"notification"`
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
	return temporal.NewApplicationErrorWithOptions(err.Error(), ErrorDownstream, temporal.ApplicationErrorOptions{
		NextRetryDelay: connectors.RetryAfter(err),
	})
}
