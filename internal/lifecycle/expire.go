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
	// expireEvery is the interval at which expired agents are deactivated. Decisions deny
	// an agent from the moment of its expiry.
	expireEvery = 5 * time.Second
	expireBatch = 100
)

// Expire deactivates expired agents until ctx ends. Several processes may run it
// concurrently.
func (w *Writer) Expire(ctx context.Context) {
	for ctx.Err() == nil {
		n, err := w.expireOnce(ctx)
		if err != nil && ctx.Err() == nil {
			w.log.Warn("failed to deactivate expired agents; retrying", "error", err)
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
	expired, err := database.Rows(ctx, w.db, uuid.Nil, pgx.RowToStructByPos[agent], `select tenant_id, principal_id
		from expired_agents($1)`, expireBatch)
	if err != nil {
		return 0, fmt.Errorf("list expired agents: %w", err)
	}
	for _, a := range expired {
		// A failure does not stop the deactivation of the other agents.
		cause := Cause{Trigger: TriggerExpired, Actor: "leaver"}
		if _, failed := w.SetActive(ctx, a.Tenant, directory.TypeAgent, a.ID, false, cause); failed != nil {
			err = errors.Join(err, fmt.Errorf("deactivate agent %s: %w", a.ID, failed))
		}
	}
	return len(expired), err
}
