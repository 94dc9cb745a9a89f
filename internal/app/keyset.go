package app

import (
	"context"
	"errors"
	"time"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/seal"
)

// keysetRetry is the interval between attempts to compare the key set while PostgreSQL is down.
const keysetRetry = 2 * time.Second

// checkKeyset compares this process's key set with the keys that the installation's processes
// seal with, and stops the process if one is missing: the process could not open what others
// seal, nor they what it seals. It retries while PostgreSQL is down.
func (a *App) checkKeyset(ctx context.Context, stop context.CancelCauseFunc) {
	for {
		err := database.CheckKeyset(ctx, a.DB, a.Sealer)
		switch {
		case err == nil:
			return
		case errors.Is(err, seal.ErrUnknownKey):
			a.Log.Error("stopping process; key set differs from the installation's", "error", err)
			stop(err)
			return
		}
		a.Log.Warn("failed to compare key set; retrying", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(keysetRetry):
		}
	}
}

// keysetError returns the error with which [App.checkKeyset] stopped the process, or nil.
func keysetError(ctx context.Context) error {
	if err := context.Cause(ctx); errors.Is(err, seal.ErrUnknownKey) {
		return err
	}
	return nil
}
