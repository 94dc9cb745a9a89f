package activities

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

	"github.com/leaverhq/leaver/internal/ssf"
)

// PushInput identifies the stream whose tokens are pushed.
type PushInput struct {
	Tenant uuid.UUID `json:"tenant"`
	Stream uuid.UUID `json:"stream"`
}

// Pushed is the result of one attempt.
type Pushed struct {
	Delivered int  `json:"delivered"`
	Refused   int  `json:"refused,omitempty"`
	More      bool `json:"more,omitempty"`
}

const (
	// pushBatch is the maximum number of tokens that one attempt sends.
	pushBatch = 100
	// pushFailures is the number of principals with a failed token at which a receiver
	// counts as down. One token that it cannot process does not delay other principals'.
	pushFailures = 3
	// pushTime is how long one attempt sends tokens, before another stream gets its place.
	pushTime = 30 * time.Second
	// pushDelay is the delay of a stream while others of its tenant are pushed.
	pushDelay = 2 * time.Second
)

// Push sends a stream's tokens to its receiver, in order for each principal. It returns a
// retryable error if a token could not be delivered; delivered tokens are not sent again.
// It does nothing if the stream is paused, disabled or deleted.
func (a *Activities) Push(ctx context.Context, in PushInput) (Pushed, error) {
	// Several consecutive timeouts take longer than the heartbeat timeout.
	defer heartbeat(ctx, func() { activity.RecordHeartbeat(ctx) })()
	var pushed Pushed
	end, ok := a.Pusher.Begin(in.Tenant)
	if !ok {
		return pushed, retryable("other streams of the tenant are being pushed", ErrorDownstream, pushDelay)
	}
	defer end()
	began := time.Now()
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
		if time.Since(began) > pushTime {
			more = true
			break
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

// pushOne sends one token, and reports whether the next may be sent.
func (a *Activities) pushOne(
	ctx context.Context, in PushInput, stream ssf.Opened, token ssf.Token, pushed *Pushed,
) (goesOn bool, err error) {
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

// notPushed stores the failure, and returns a retryable error with the receiver's delay.
func (a *Activities) notPushed(ctx context.Context, in PushInput, failure *ssf.UnreachableError) error {
	if err := a.Signals.Failed(ctx, in.Tenant, in.Stream, failure.Reason); err != nil {
		return err
	}
	return retryable(failure.Reason, ErrorDownstream, failure.RetryAfter)
}
