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
	// relayAttempt limits one start, so that an unresponsive Temporal does not block the relay.
	relayAttempt = 3 * time.Second
)

// Transmitter starts the push of a stream's tokens.
type Transmitter interface {
	Transmit(ctx context.Context, p Pushing) error
}

// Relay starts the push of undelivered tokens until ctx is done. Several relays may run concurrently.
func (s *Store) Relay(ctx context.Context, by Transmitter, log *slog.Logger) {
	var swept time.Time
	for ctx.Err() == nil {
		stored := s.stored.next()
		if time.Since(swept) > relaySweep {
			swept = time.Now()
			if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
				log.Warn("failed to sweep signals", "error", err)
			}
		}
		if err := s.relay(ctx, by); err != nil && ctx.Err() == nil {
			log.Warn("failed to relay signals; retrying", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-stored:
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
			err = errors.Join(err, failed, s.putBack(ctx, p))
		}
	}
	return err
}
