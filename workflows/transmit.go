package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
)

const (
	// transmitRounds bounds a history: a receiver with more to come continues as new.
	transmitRounds = 200
	// transmitTimeout bounds one attempt at a batch, which heartbeats.
	transmitTimeout = 30 * time.Minute
	// transmitInterval bounds how long a receiver that is back waits to be tried.
	transmitInterval = 2 * time.Minute
)

// Transmit pushes what a stream has to deliver until nothing is left. Each stream has
// a workflow of its own: a receiver that is down delays nobody else, and is tried
// until it is back, or what waits for it has expired.
func Transmit(ctx workflow.Context, in activities.PushInput) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: PushQueue, StartToCloseTimeout: transmitTimeout, HeartbeatTimeout: heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: transmitInterval},
		Summary:     fmt.Sprintf("push to stream %s", in.Stream),
	})
	for range transmitRounds {
		var pushed activities.Pushed
		if err := workflow.ExecuteActivity(ctx, a.Push, in).Get(ctx, &pushed); err != nil {
			return err
		}
		if !pushed.More {
			return nil
		}
	}
	return workflow.NewContinueAsNewError(ctx, Transmit, in)
}
