package activities

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/internal/ssf"
)

// PushInput names the stream whose tokens are pushed.
type PushInput struct {
	Tenant uuid.UUID `json:"tenant"`
	Stream uuid.UUID `json:"stream"`
}

// Pushed is what one attempt came to.
type Pushed struct {
	Delivered int  `json:"delivered"`
	Refused   int  `json:"refused,omitempty"`
	More      bool `json:"more,omitempty"`
}

// pushBatch is how many tokens one attempt sends.
const pushBatch = 100

// Push sends a stream's tokens to its receiver, one by one in their order. Where the
// receiver cannot be reached it fails, and is tried again: what it has sent is settled.
// A stream that is paused, disabled or gone has nothing to push.
func (a *Activities) Push(ctx context.Context, in PushInput) (Pushed, error) {
	var pushed Pushed
	stream, err := a.Signals.Open(ctx, in.Tenant, in.Stream)
	if errors.Is(err, ssf.ErrStreamNotFound) {
		return pushed, nil
	}
	if err != nil || !stream.Push || stream.Status != ssf.Enabled {
		return pushed, err
	}
	tokens, more, err := a.Signals.Waiting(ctx, in.Tenant, stream.Stream, pushBatch)
	if err != nil {
		return pushed, err
	}
	pushed.More = more
	for _, token := range tokens {
		refusal, err := a.Pusher.Push(ctx, stream.Endpoint, stream.Header, token.SET)
		if err != nil {
			return pushed, a.notPushed(ctx, in, err)
		}
		if err := a.Signals.Settle(ctx, in.Tenant, in.Stream, token.JTI, refusal); err != nil {
			return pushed, err
		}
		pushed.Delivered++
		if refusal != nil {
			pushed.Delivered--
			pushed.Refused++
		}
		activity.RecordHeartbeat(ctx)
	}
	return pushed, nil
}

// notPushed stores why, and says when to try again.
func (a *Activities) notPushed(ctx context.Context, in PushInput, err error) error {
	if failed := a.Signals.Failed(ctx, in.Tenant, in.Stream, err.Error()); failed != nil {
		return failed
	}
	var unreachable *ssf.UnreachableError
	var wait ssf.UnreachableError
	if errors.As(err, &unreachable) {
		wait = *unreachable
	}
	return temporal.NewApplicationErrorWithOptions(err.Error(), ErrorDownstream, temporal.ApplicationErrorOptions{NextRetryDelay: wait.RetryAfter})
}
