package app

import (
	"context"
	"errors"
	"time"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/seal"
)

// keysetRetry is how soon the key set is compared again where PostgreSQL is down.
const keysetRetry = 2 * time.Second

// checkKeyset compares this process's key set with those that the installation's processes
// seal with, once PostgreSQL answers, and stops the process where one is missing: it would
// fail what others seal, and seal what they cannot open.
func (a *App) checkKeyset(ctx context.Context, stop context.CancelCauseFunc) {
	for {
		err := database.CheckKeyset(ctx, a.db, a.sealer)
		switch {
		case err == nil:
			return
		case errors.Is(err, seal.ErrUnknownKey):
			a.log.Error("stopping process; key set differs from the installation's", "error", err)
			stop(err)
			return
		}
		a.log.Warn("failed to compare the key set; will try again", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(keysetRetry):
		}
	}
}

// keysetError is the reason why a process was stopped by [App.checkKeyset], or nil.
func keysetError(ctx context.Context) error {
	if err := context.Cause(ctx); errors.Is(err, seal.ErrUnknownKey) {
		return err
	}
	return nil
}
