package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

const (
	// expireEvery is how late an agent may be deactivated whose time is over; decisions
	// about it are deny from its very end.
	expireEvery = 5 * time.Second
	expireBatch = 100
)

// Expire deactivates agents whose validity is over, until ctx ends. Any number may
// run side by side.
func (w *Writer) Expire(ctx context.Context) {
	for ctx.Err() == nil {
		n, err := w.expireOnce(ctx)
		if err != nil && ctx.Err() == nil {
			w.log.Warn("agents whose time is over are not deactivated yet; will try again", "error", err)
		}
		if n == expireBatch && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(expireEvery):
		}
	}
}

func (w *Writer) expireOnce(ctx context.Context) (n int, err error) {
	type agent struct{ Tenant, ID uuid.UUID }
	expired, err := database.Rows(ctx, w.db, uuid.Nil, pgx.RowToStructByPos[agent], `select tenant_id, principal_id from expired_agents($1)`, expireBatch)
	if err != nil {
		return 0, fmt.Errorf("look for agents whose time is over: %w", err)
	}
	for _, a := range expired {
		// One that cannot be deactivated keeps no other from it.
		if _, failed := w.SetActive(ctx, a.Tenant, directory.TypeAgent, a.ID, false, Cause{Trigger: TriggerExpired, Actor: "leaver"}); failed != nil {
			err = errors.Join(err, fmt.Errorf("agent %s: %w", a.ID, failed))
		}
	}
	return len(expired), err
}
