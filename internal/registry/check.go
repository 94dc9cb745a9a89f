package registry

import (
	"context"
	"sync"
	"time"

	"github.com/leaverhq/leaver/activities/connectors"
)

// checkTimeout bounds the check of the connectors.
const checkTimeout = 10 * time.Second

// Check makes a harmless authenticated call at each connector that offers one, concurrently. It returns the result
// of each of them by name.
func (r Registry) Check(ctx context.Context) map[string]error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var names []string
	for name, e := range r {
		if _, ok := connectors.As[connectors.Checker](e.Connector); ok {
			names = append(names, name)
		}
	}
	return concurrently(names, func(name string) error { return r.CheckAt(ctx, name) })
}

// CheckAt makes the call at one connector, if it offers one.
func (r Registry) CheckAt(ctx context.Context, name string) error {
	checker, ok := connectors.As[connectors.Checker](r[name].Connector)
	if !ok {
		return nil
	}
	release, err := r[name].Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	return checker.Check(ctx)
}

// concurrently calls do for all connectors at the same time, and returns the results by name.
func concurrently[T any](names []string, do func(name string) T) map[string]T {
	results := make(map[string]T, len(names))
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, name := range names {
		all.Go(func() {
			result := do(name)
			mu.Lock()
			defer mu.Unlock()
			results[name] = result
		})
	}
	all.Wait()
	return results
}
