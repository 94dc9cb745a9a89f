package app

import (
	"context"
	"time"

	"github.com/leaverhq/leaver/worker"
)

// workRetry is how often a worker that cannot reach Temporal tries again.
const workRetry = time.Second

// Work runs the workers until ctx ends; then attempts in flight finish. It
// waits for a Temporal that is down.
func (a *App) Work(ctx context.Context) error {
	stopMetrics, err := a.serveMetrics(ctx)
	if err != nil {
		return err
	}
	defer stopMetrics()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.checkKeyset(ctx, cancel) // before anything is opened or sealed
	for {
		// Workers that failed to start cannot be started again: make new ones.
		workers := worker.New(a.temporal, a.activities())
		err := workers.Start()
		if err == nil {
			a.log.Info("workers are running", "connectors", len(a.connectors))
			<-ctx.Done()
			workers.Stop()
			return keysetError(ctx)
		}
		a.log.Warn("workers cannot start; will try again", "error", err)
		select {
		case <-ctx.Done():
			return keysetError(ctx)
		case <-time.After(workRetry):
		}
	}
}
