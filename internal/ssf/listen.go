package ssf

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// broadcast notifies the relay and the long polls of a process when signals were stored. They poll too: behind
// a connection pooler in transaction mode, PostgreSQL's notifications are lost.
type broadcast struct {
	mu     sync.Mutex
	closes chan struct{} // at the next notification
}

// next returns a channel that is closed at the next notification.
func (b *broadcast) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closes == nil {
		b.closes = make(chan struct{})
	}
	return b.closes
}

func (b *broadcast) notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closes != nil {
		close(b.closes)
		b.closes = nil
	}
}

// listenAgain is the delay before a lost connection is replaced.
const listenAgain = 5 * time.Second

// Listen notifies the relay and the long polls when a transaction that stores signals commits, until ctx is
// done. It uses one database connection.
func (s *Store) Listen(ctx context.Context, log *slog.Logger) {
	for ctx.Err() == nil {
		err := s.db.Listen(ctx, channel, s.stored.notify)
		if ctx.Err() != nil {
			return
		}
		log.Warn("failed to listen for signals; they are polled until the next attempt", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(listenAgain):
		}
	}
}
