package scim

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"
)

const (
	// maxLargeBodies is how many bodies over maxBody are in memory at a time.
	maxLargeBodies = 8
	// largeWait bounds how long a request waits for a slot. It is far below the server's read
	// timeout.
	largeWait = 5 * time.Second
)

// bodies limits the large bodies in memory: one per tenant, so that a stalled tenant does not
// block others, and maxLargeBodies in total.
type bodies struct {
	all *semaphore.Weighted
	mu  sync.Mutex
	of  map[uuid.UUID]*semaphore.Weighted
}

func newBodies() *bodies {
	return &bodies{all: semaphore.NewWeighted(maxLargeBodies), of: make(map[uuid.UUID]*semaphore.Weighted)}
}

// take acquires a slot until ctx, the context of a request, ends. It returns a 503 error if
// no slot is free within largeWait.
func (b *bodies) take(ctx context.Context, tenant uuid.UUID) error {
	busy := failure(http.StatusServiceUnavailable, "other large requests are being processed; try again")
	own := b.tenant(tenant)
	waiting, cancel := context.WithTimeout(ctx, largeWait)
	defer cancel()
	if own.Acquire(waiting, 1) != nil {
		return busy
	}
	if b.all.Acquire(waiting, 1) != nil {
		own.Release(1)
		return busy
	}
	context.AfterFunc(ctx, func() { b.all.Release(1); own.Release(1) })
	return nil
}

func (b *bodies) tenant(id uuid.UUID) *semaphore.Weighted {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := b.of[id]
	if own == nil {
		if len(b.of) >= maxLimiters {
			clear(b.of)
		}
		own = semaphore.NewWeighted(1)
		b.of[id] = own
	}
	return own
}
