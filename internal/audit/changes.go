package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Change is one row of the directory's audit trail: the actor and the changed attributes,
// but not their values.
type Change struct {
	ID       int64     `json:"id"`
	Resource uuid.UUID `json:"resourceId"`
	Type     string    `json:"resourceType"`
	Version  int64     `json:"version"`
	Trigger  string    `json:"trigger"`
	Actor    string    `json:"actor"`
	Changed  []string  `json:"changed"`
	Ignored  []string  `json:"ignored"` // ignored parts of the request
	At       time.Time `json:"at"`
}

// Changes returns a page of the audit trail, of one resource or of all, newest first. before
// is the last ID of the previous page; 0 for the first page. It relies on the primary key of
// changes, or on the index changes_resource.
func (s *Store) Changes(
	ctx context.Context, tenant uuid.UUID, resource *uuid.UUID, before int64, limit int,
) ([]Change, error) {
	changes, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[Change], `
		select id, resource_id, resource_type, version, trigger, actor, changed, ignored, at from changes
		 where tenant_id = $1 and ($2::uuid is null or resource_id = $2) and ($3 = 0 or id < $3)
		 order by id desc limit $4`, tenant, resource, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	return changes, nil
}
