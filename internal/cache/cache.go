// Package cache keeps values in memory: the least recently used are evicted, all expire, and
// concurrent callers load a value once.
package cache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"golang.org/x/sync/singleflight"
)

// Cache is safe for concurrent use. [New] creates one.
type Cache[K comparable, V any] struct {
	entries *expirable.LRU[K, V]
	loads   singleflight.Group

	mu         sync.Mutex // orders additions and invalidations
	generation int        // counts invalidations
}

// New returns a cache of at most size values, which expire after ttl; with ttl 0 they do not.
// The cache of a ttl has a goroutine that does not end.
func New[K comparable, V any](size int, ttl time.Duration) *Cache[K, V] {
	return &Cache[K, V]{entries: expirable.NewLRU[K, V](size, nil, ttl)}
}

// Get returns the value of key, and calls load if the cache has none. Errors are not cached.
// If the cache is invalidated while load runs, the value is returned and not cached. The end
// of one caller's context does not end the load, for which others may wait.
func (c *Cache[K, V]) Get(ctx context.Context, key K, load func(context.Context) (V, error)) (V, error) {
	if value, ok := c.entries.Get(key); ok {
		return value, nil
	}
	c.mu.Lock()
	generation := c.generation
	c.mu.Unlock()
	loaded := c.loads.DoChan(fmt.Sprintf("%d %v", generation, key), func() (any, error) {
		value, err := load(context.WithoutCancel(ctx))
		if err == nil {
			c.add(generation, key, value)
		}
		return value, err
	})
	select {
	case result := <-loaded:
		value, _ := result.Val.(V)
		return value, result.Err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

func (c *Cache[K, V]) add(generation int, key K, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation == generation {
		c.entries.Add(key, value)
	}
}

// Remove removes the value of one key. It does not affect loads.
func (c *Cache[K, V]) Remove(key K) { c.entries.Remove(key) }

// Clear removes all values.
func (c *Cache[K, V]) Clear() { c.RemoveIf(func(K) bool { return true }) }

// RemoveIf removes the values of the keys for which remove returns true.
func (c *Cache[K, V]) RemoveIf(remove func(key K) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	if c.entries.Len() == 0 {
		return
	}
	for _, key := range c.entries.Keys() {
		if remove(key) {
			c.entries.Remove(key)
		}
	}
}
