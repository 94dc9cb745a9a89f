package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/serviceerror"

	"github.com/leaverhq/leaver/worker"
)

// workRetry is when a worker that cannot reach Temporal first tries again; each time it
// waits twice as long, up to maxWorkRetry.
const (
	workRetry    = time.Second
	maxWorkRetry = 30 * time.Second
)

// Work runs the workers until ctx ends; then attempts in flight finish. It
// waits for a Temporal that is down.
func (a *App) Work(ctx context.Context) error {
	if err := a.checkStart(ctx); err != nil {
		return err
	}
	defer a.serveMetrics(ctx, a.config.Metrics.WorkerListen)()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.checkKeyset(ctx, cancel) // before anything is opened or sealed
	for wait := workRetry; ; wait = min(2*wait, maxWorkRetry) {
		// Workers that failed to start cannot be started again: make new ones.
		workers := worker.New(a.temporal, a.activities())
		err := workers.Start()
		if err == nil {
			a.log.Info("workers are running", "connectors", len(a.connectors))
			<-ctx.Done()
			workers.Stop()
			return keysetError(ctx)
		}
		var missing *serviceerror.NamespaceNotFound
		if errors.As(err, &missing) {
			return fmt.Errorf("%w: there is no namespace %s: run `leaver migrate`", worker.ErrMisconfigured, missing.Namespace)
		}
		a.log.Warn("workers cannot start; will try again", "in", wait.String(), "error", err)
		select {
		case <-ctx.Done():
			return keysetError(ctx)
		case <-time.After(wait):
		}
	}
}
