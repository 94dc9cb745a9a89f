package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/serviceerror"

	"github.com/leaverhq/leaver/worker"
)

// workRetry is the first backoff of a worker that cannot reach Temporal. It doubles with each
// attempt, up to maxWorkRetry.
const (
	workRetry    = time.Second
	maxWorkRetry = 30 * time.Second
)

// Work runs the workers until ctx ends, and then waits for attempts in flight. While Temporal is
// down, it retries.
func (a *App) Work(ctx context.Context) error {
	if err := a.checkStart(ctx); err != nil {
		return err
	}
	defer a.serveMetrics(ctx, a.Config.Metrics.WorkerListen)()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.checkKeyset(ctx, cancel) // before any payload is opened or sealed
	for wait := workRetry; ; wait = min(2*wait, maxWorkRetry) {
		// Workers that failed to start cannot be started again.
		workers := worker.New(a.Temporal, a.Activities())
		err := workers.Start()
		if err == nil {
			a.Log.Info("started workers", "connectors", len(a.Connectors))
			<-ctx.Done()
			workers.Stop()
			return keysetError(ctx)
		}
		var missing *serviceerror.NamespaceNotFound
		if errors.As(err, &missing) {
			return fmt.Errorf("%w: namespace %q does not exist: run `leaver migrate`", worker.ErrMisconfigured,
				missing.Namespace)
		}
		a.Log.Warn("failed to start workers; retrying", "in", wait.String(), "error", err)
		select {
		case <-ctx.Done():
			return keysetError(ctx)
		case <-time.After(wait):
		}
	}
}
