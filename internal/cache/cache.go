// Package cache keeps values in memory: the least recently used are evicted, all expire, and
// concurrent callers load a value once.
package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"
)

// Cache is safe for concurrent use. [New] creates one.
type Cache[K comparable, V any] struct {
	entries *lru.Cache[K, entry[V]]
	ttl     time.Duration
	loads   singleflight.Group

	mu         sync.Mutex // orders additions and invalidations
	generation int        // counts invalidations
}

// entry is a value with the time at which it expires; the zero time is never.
type entry[V any] struct {
	value   V
	expires time.Time
}

func (e entry[V]) valid() bool { return e.expires.IsZero() || time.Now().Before(e.expires) }

// New returns a cache of at most size values, which must be positive. They expire after ttl; with ttl 0 they do not.
func New[K comparable, V any](size int, ttl time.Duration) *Cache[K, V] {
	entries, err := lru.New[K, entry[V]](size)
	if err != nil {
		panic(err) // the size is not positive
	}
	return &Cache[K, V]{entries: entries, ttl: ttl}
}

// Get returns the value of key, and calls load if the cache has none. Errors are not cached.
// If the cache is invalidated while load runs, the value is returned and not cached.
func (c *Cache[K, V]) Get(ctx context.Context, key K, load func(context.Context) (V, error)) (V, error) {
	return c.GetIf(ctx, key, load, func(V) bool { return true })
}

// GetIf is [Cache.Get] with a condition: a value is cached if keep returns true. load runs in the
// goroutine and with the context of one caller, so that it ends with that caller's limits; if
// another's context has ended it, the callers who wait load again.
func (c *Cache[K, V]) GetIf(
	ctx context.Context, key K, load func(context.Context) (V, error), keep func(V) bool,
) (V, error) {
	for {
		if e, ok := c.entries.Get(key); ok && e.valid() {
			return e.value, nil
		}
		c.mu.Lock()
		generation := c.generation
		c.mu.Unlock()
		mine := false
		loaded, err, _ := c.loads.Do(fmt.Sprintf("%d %v", generation, key), func() (any, error) {
			mine = true
			value, err := load(ctx)
			if err == nil && keep(value) {
				c.add(generation, key, value)
			}
			return value, err
		})
		ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		if ended && !mine && ctx.Err() == nil {
			continue
		}
		value, _ := loaded.(V)
		return value, err
	}
}

func (c *Cache[K, V]) add(generation int, key K, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.generation != generation {
		return
	}
	e := entry[V]{value: value}
	if c.ttl > 0 {
		e.expires = time.Now().Add(c.ttl)
	}
	c.entries.Add(key, e)
}

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
