package ssf

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

const (
	relayPoll  = 300 * time.Millisecond
	relaySweep = time.Hour
	relayBatch = 100
	// relayAttempt bounds one start, so that a Temporal that hangs holds up nothing long.
	relayAttempt = 3 * time.Second
)

// Transmitter has a stream's tokens pushed.
type Transmitter interface {
	Transmit(ctx context.Context, p Pushing) error
}

// Relay has whatever is to be pushed pushed, until ctx ends. Any number may run side
// by side.
func (s *Store) Relay(ctx context.Context, by Transmitter, log *slog.Logger) {
	var swept time.Time
	for ctx.Err() == nil {
		if time.Since(swept) > relaySweep {
			swept = time.Now()
			if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				log.Warn("signals are not swept", "error", err)
			}
		}
		if err := s.relay(ctx, by); err != nil && ctx.Err() == nil {
			log.Warn("signals wait; will try again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(relayPoll):
		}
	}
}

func (s *Store) relay(ctx context.Context, by Transmitter) error {
	pushing, err := s.Claim(ctx, relayBatch)
	if err != nil {
		return err
	}
	for _, p := range pushing {
		attempt, cancel := context.WithTimeout(ctx, relayAttempt)
		failed := by.Transmit(attempt, p)
		cancel()
		if failed != nil {
			err = errors.Join(err, failed, s.Release(ctx, p.Tenant, p.Stream))
		}
	}
	return err
}
