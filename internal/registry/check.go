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
	results := make(map[string]error)
	var mu sync.Mutex
	var all sync.WaitGroup
	for name, e := range r {
		checker, ok := connectors.As[connectors.Checker](e.Connector)
		if !ok {
			continue
		}
		all.Go(func() {
			release, err := e.Acquire(ctx)
			if err == nil {
				err = checker.Check(ctx)
				release()
			}
			mu.Lock()
			defer mu.Unlock()
			results[name] = err
		})
	}
	all.Wait()
	return results
}
