package cache_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leaverhq/leaver/internal/cache"
)

// counter counts how often it loads.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) load(context.Context) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n, nil
}

func want(t *testing.T, c *cache.Cache[string, int], key string, load func(context.Context) (int, error), value int) {
	t.Helper()
	if got, err := c.Get(t.Context(), key, load); err != nil || got != value {
		t.Errorf("Get(%q) = %d, %v; want %d", key, got, err, value)
	}
}

func TestCache_LoadsOnceUntilTheValueExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, loads := cache.New[string, int](10, 50*time.Millisecond), &counter{}
		want(t, c, "a", loads.load, 1)
		want(t, c, "a", loads.load, 1)
		time.Sleep(60 * time.Millisecond) // of the bubble's clock
		want(t, c, "a", loads.load, 2)
	})
}

func TestCache_ErrorsAreNotCached(t *testing.T) {
	c, loads := cache.New[string, int](10, 0), &counter{}
	failed := errors.New("failed")
	if _, err := c.Get(
		t.Context(),
		"a",
		func(context.Context) (int, error) { return 0, failed },
	); !errors.Is(
		err,
		failed,
	) {
		t.Errorf("got %v, want %v", err, failed)
	}
	want(t, c, "a", loads.load, 1)
}

func TestCache_ConcurrentCallersLoadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, loads := cache.New[string, int](10, 0), &counter{}
		slow := func(ctx context.Context) (int, error) {
			time.Sleep(time.Second)
			return loads.load(ctx)
		}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { want(t, c, "a", slow, 1) })
		}
		all.Wait()
	})
}

// TestCache_WaitersLoadAgainAfterACancelledCaller checks that one caller's context fails no other.
func TestCache_WaitersLoadAgainAfterACancelledCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, loads := cache.New[string, int](10, 0), &counter{}
		slow := func(ctx context.Context) (int, error) {
			select {
			case <-time.After(time.Second):
				return loads.load(ctx)
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := c.Get(ctx, "a", slow); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the cancelled caller got %v", err)
			}
		})
		synctest.Wait()
		all.Go(func() { want(t, c, "a", slow, 1) })
		all.Wait()
	})
}

func TestCache_KeepsOnlyWhatItIsAskedTo(t *testing.T) {
	c, loads := cache.New[string, int](10, 0), &counter{}
	for value := 1; value <= 3; value++ {
		got, err := c.GetIf(t.Context(), "a", loads.load, func(n int) bool { return n > 2 })
		if err != nil || got != value {
			t.Errorf("got %d, %v; want %d", got, err, value)
		}
	}
	want(t, c, "a", loads.load, 3)
}

// TestCache_ValueLoadedBeforeAnInvalidationIsNotCached is what a revoked token relies on: a
// look-up that began before the revocation must not be served after it.
func TestCache_ValueLoadedBeforeAnInvalidationIsNotCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, loads := cache.New[string, int](10, 0), &counter{}
		slow := func(ctx context.Context) (int, error) {
			n, err := loads.load(ctx)
			time.Sleep(time.Second)
			return n, err
		}
		go func() { _, _ = c.Get(t.Context(), "a", slow) }()
		synctest.Wait()
		c.Clear()
		want(t, c, "a", slow, 2)
		want(t, c, "a", slow, 2)
	})
}

func TestCache_RemoveIfKeepsOtherKeys(t *testing.T) {
	c, a, b := cache.New[string, int](10, 0), &counter{}, &counter{}
	want(t, c, "a", a.load, 1)
	want(t, c, "b", b.load, 1)
	c.RemoveIf(func(key string) bool { return key == "a" })
	want(t, c, "a", a.load, 2)
	want(t, c, "b", b.load, 1)
}

func TestCache_LeastRecentlyUsedIsEvicted(t *testing.T) {
	c, loads := cache.New[string, int](2, 0), &counter{}
	want(t, c, "a", loads.load, 1)
	want(t, c, "b", loads.load, 2)
	want(t, c, "a", loads.load, 1)
	want(t, c, "c", loads.load, 3)
	want(t, c, "a", loads.load, 1)
	want(t, c, "b", loads.load, 4)
}
