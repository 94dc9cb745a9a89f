package directory

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/cache"
)

const (
	// countTTL bounds the age of a count of many resources when another process wrote; this
	// process's own writes are visible at once.
	countTTL = 5 * time.Second
	// countExact is the number of resources up to which a count is not cached.
	countExact = 1000
	// maxCounts bounds the cached counts.
	maxCounts = 1000
)

// counts caches how many resources expensive queries match, so that a client that reads many
// pages does not have all resources counted for each page.
type counts struct {
	cached *cache.Cache[countKey, int]
}

type countKey struct {
	tenant uuid.UUID
	query  string
}

func newCounts() counts { return counts{cache.New[countKey, int](maxCounts, countTTL)} }

// of returns a cached count, or calls count. A small count is not cached: it is cheap, and exact.
func (c counts) of(
	ctx context.Context, tenant uuid.UUID, sql string, args []any, count func(context.Context) (int, error),
) (int, error) {
	key := countKey{tenant, fmt.Sprintf("%s %q", sql, args)}
	return c.cached.GetIf(ctx, key, count, func(n int) bool { return n > countExact })
}

// InvalidateCounts drops a tenant's cached totals, so that clients read their own writes.
func (s *Store) InvalidateCounts(tenant uuid.UUID) {
	s.counts.cached.RemoveIf(func(k countKey) bool { return k.tenant == tenant })
}
