package ssf

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// bell wakes the relay and the long polls of a process when signals were stored. They poll too: behind
// a connection pooler in transaction mode, PostgreSQL's notifications are lost.
type bell struct {
	mu   sync.Mutex
	next chan struct{} // closed at the next ring
}

// rings returns a channel that is closed at the next ring.
func (b *bell) rings() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// listenAgain is the delay before a lost connection is replaced.
const listenAgain = 5 * time.Second

// Listen wakes the relay and the long polls when a transaction that stores signals commits, until ctx is
// done. It uses one database connection.
func (s *Store) Listen(ctx context.Context, log *slog.Logger) {
	for ctx.Err() == nil {
		err := s.db.Listen(ctx, channel, s.bell.ring)
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
