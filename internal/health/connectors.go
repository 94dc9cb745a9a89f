package health

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Backlog is what cascades have to do at a connector, over all tenants.
type Backlog struct {
	Connector string     `json:"-"`
	Ending    int        `json:"ending"` // credentials that cascades are ending
	Failed    int        `json:"failed"` // credentials that cascades failed to end
	FailedAt  *time.Time `json:"failedAt,omitempty"`
	Reason    string     `json:"reason,omitempty"` // of the last failure
}

// Backlogs returns the backlogs of the connectors that have one, by name.
func (s *Store) Backlogs(ctx context.Context) (map[string]Backlog, error) {
	rows, err := database.Rows(ctx, s.db, uuid.Nil, pgx.RowToStructByPos[Backlog],
		`select connector, ending, failed, failed_at, reason from connector_health()`)
	if err != nil {
		return nil, fmt.Errorf("read the backlogs of connectors: %w", err)
	}
	backlogs := make(map[string]Backlog, len(rows))
	for _, b := range rows {
		backlogs[b.Connector] = b
	}
	return backlogs, nil
}
