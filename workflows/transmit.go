package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities"
)

const (
	// transmitRounds is the number of batches per run. It bounds the history: a stream
	// with more tokens continues as new.
	transmitRounds = 200
	// transmitTimeout bounds one attempt at a batch, which heartbeats.
	transmitTimeout = 30 * time.Minute
	// transmitInterval is the maximum delay between attempts at a receiver that is down.
	transmitInterval = 2 * time.Minute
)

// SignalMore is the signal that a stream has more tokens.
const SignalMore = "more"

// Transmit pushes a stream's tokens until none is left. Each stream has a separate
// workflow, so that a receiver that is down delays no other. It is retried until it
// answers, or its tokens have expired.
func Transmit(ctx workflow.Context, in activities.PushInput) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: PushQueue, StartToCloseTimeout: transmitTimeout, HeartbeatTimeout: heartbeatTimeout,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: transmitInterval,
		},
		Summary:  fmt.Sprintf("push to stream %s", in.Stream),
		Priority: temporal.Priority{FairnessKey: in.Tenant.String()},
	})
	more := workflow.GetSignalChannel(ctx, SignalMore)
	for range transmitRounds {
		for more.ReceiveAsync(nil) { // the next attempt reads what was stored before it
		}
		var pushed activities.Pushed
		if err := workflow.ExecuteActivity(ctx, a.Push, in).Get(ctx, &pushed); err != nil {
			return err
		}
		if !pushed.More && more.Len() == 0 {
			return nil
		}
	}
	return workflow.NewContinueAsNewError(ctx, Transmit, in)
}
