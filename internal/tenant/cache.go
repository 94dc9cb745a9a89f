package tenant

import (
	"sync"
	"time"
)

const (
	// cacheTTL is how long another process's revocation may go unnoticed.
	cacheTTL = time.Second
	maxCache = 10_000 // entries
)

// cache remembers values for [cacheTTL]; errors it does not remember. The zero
// cache is ready.
type cache[K comparable, V any] struct {
	mu         sync.Mutex
	generation int
	kept       map[K]remembered[V]
}

type remembered[V any] struct {
	value V
	until time.Time
}

// get returns the remembered value, or asks for it.
func (c *cache[K, V]) get(key K, ask func() (V, error)) (V, error) {
	c.mu.Lock()
	known, ok := c.kept[key]
	generation := c.generation
	c.mu.Unlock()
	now := time.Now()
	if ok && now.Before(known.until) {
		return known.value, nil
	}
	value, err := ask()
	if err != nil {
		return value, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// What was asked before a change may be the state before it.
	if c.generation == generation {
		if c.kept == nil || len(c.kept) >= maxCache {
			c.kept = make(map[K]remembered[V])
		}
		c.kept[key] = remembered[V]{value, now.Add(cacheTTL)}
	}
	return value, nil
}

func (c *cache[K, V]) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = nil
	c.generation++
}
