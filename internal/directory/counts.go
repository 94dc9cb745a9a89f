package directory

import (
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// countTTL is how old a count of many resources may be where another
	// process wrote; this process's own writes are seen at once.
	countTTL = 5 * time.Second
	// countExact is up to how many resources are counted each time.
	countExact = 1000
	// maxCounts bounds how many counts are kept.
	maxCounts = 1000
)

// counts remembers for a moment how many resources dear queries match, so that
// a walk over many pages does not count all of them for each.
type counts struct {
	mu     sync.Mutex
	kept   map[uuid.UUID]map[string]count
	size   int
	writes int
}

type count struct {
	n  int
	at time.Time
}

// of returns a remembered count, or asks for it. Few resources are counted
// each time: that is cheap, and exact.
func (c *counts) of(tenant uuid.UUID, sql string, args []any, ask func() (int, error)) (int, error) {
	key := fmt.Sprintf("%s %q", sql, args)
	c.mu.Lock()
	known, ok := c.kept[tenant][key]
	writes := c.writes
	c.mu.Unlock()
	if ok && time.Since(known.at) < countTTL {
		return known.n, nil
	}
	asked := time.Now()
	n, err := ask()
	if err != nil || n <= countExact {
		return n, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writes != writes {
		return n, nil // it may have been counted before a write
	}
	if c.kept == nil || c.size >= maxCounts {
		c.kept, c.size = make(map[uuid.UUID]map[string]count), 0
	}
	if c.kept[tenant] == nil {
		c.kept[tenant] = make(map[string]count)
	}
	if _, again := c.kept[tenant][key]; !again {
		c.size++
	}
	c.kept[tenant][key] = count{n, asked}
	return n, nil
}

// Wrote makes the store forget what it remembers of a tenant: whoever writes
// sees the own writes in every count.
func (s *Store) Wrote(tenant uuid.UUID) {
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	s.counts.writes++
	s.counts.size -= len(s.counts.kept[tenant])
	delete(s.counts.kept, tenant)
}
