package activities

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

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

const (
	// pushBatch is how many tokens one attempt sends.
	pushBatch = 100
	// pushFailures is how many principals' tokens may fail before a receiver counts as
	// down: one token that it chokes on keeps back no other principal's.
	pushFailures = 3
)

// Push sends a stream's tokens to its receiver, in order for each principal. Where any
// could not be delivered it fails, and is tried again: what it has sent is settled.
// A stream that is paused, disabled or gone has nothing to push.
func (a *Activities) Push(ctx context.Context, in PushInput) (Pushed, error) {
	// A few pushes that time out one after another last longer than a heartbeat may.
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
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
	behind := make(map[uuid.UUID]bool) // principals one of whose tokens failed
	var failure *ssf.UnreachableError
	for _, token := range tokens {
		if behind[token.About] {
			continue
		}
		goesOn, err := a.pushOne(ctx, in, stream, token, &pushed)
		var unreachable *ssf.UnreachableError
		if err != nil && !errors.As(err, &unreachable) {
			return pushed, err
		}
		if err != nil {
			failure, behind[token.About] = unreachable, true
			if len(behind) == pushFailures {
				break
			}
			continue
		}
		if !goesOn {
			return pushed, nil
		}
	}
	if failure != nil {
		return pushed, a.notPushed(ctx, in, failure)
	}
	if pushed.More = more; more {
		return pushed, nil
	}
	return pushed, a.Signals.Release(ctx, in.Tenant, in.Stream)
}

// pushOne sends one token, and tells whether the next may be sent.
func (a *Activities) pushOne(ctx context.Context, in PushInput, stream ssf.Opened, token ssf.Token, pushed *Pushed) (goesOn bool, err error) {
	refusal, err := a.Pusher.Push(ctx, stream.Endpoint, stream.Header, token.SET)
	if err != nil {
		return false, err
	}
	if refusal != nil {
		pushed.Refused++
	} else {
		pushed.Delivered++
	}
	return a.Signals.Settle(ctx, in.Tenant, stream.Stream, token.JTI, refusal)
}

// notPushed stores why, and says when to try again.
func (a *Activities) notPushed(ctx context.Context, in PushInput, failure *ssf.UnreachableError) error {
	if err := a.Signals.Failed(ctx, in.Tenant, in.Stream, failure.Reason); err != nil {
		return err
	}
	return retryable(failure.Reason, ErrorDownstream, failure.RetryAfter)
}
