package cascade

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/database"
)

// MaxWaiver bounds the duration of a waiver.
const MaxWaiver = 366 * 24 * time.Hour

// Waive sets an item that is alive to waived until a time, and records the actor and the
// reason. An item that has ended meanwhile stays ended. Error: [credential.ErrNotFound].
func (c *Store) Waive(ctx context.Context, tenant, id, event uuid.UUID, by, reason string, until time.Time) error {
	known, err := database.Row(ctx, c.db, tenant, pgx.RowTo[bool], `
		with waived as (
		  update credentials set state = 'waived', reason = $5, waived_until = $6, event_id = $3, updated_at = now()
		   where tenant_id = $1 and id = $2 and state in ('live', 'ending', 'failed', 'waived') returning 1),
		recorded as (
		  insert into acts (tenant_id, event_id, actor, verb, reason) select $1, $3, $4, 'waive', $5 from waived)
		select exists (select 1 from credentials where tenant_id = $1 and id = $2)`, tenant, id, event, by, reason, until)
	if err != nil {
		return fmt.Errorf("waive %s: %w", id, err)
	}
	if !known {
		return credential.ErrNotFound
	}
	return nil
}

// Waiting is an item that a cascade is still ending, with its downstream's last response.
type Waiting struct {
	Item      uuid.UUID       `json:"item"`
	Kind      connectors.Kind `json:"kind"`
	Connector string          `json:"connector"`
	Attempts  int             `json:"attempts"`
	Answer    string          `json:"answer"`
	At        time.Time       `json:"at"`
}

// WaitsFor returns items that a cascade is still ending, ordered by their last failed attempt,
// oldest first.
func (c *Store) WaitsFor(ctx context.Context, tenant, event uuid.UUID, limit int) ([]Waiting, error) {
	waiting, err := database.Rows(ctx, c.db, tenant, pgx.RowToStructByPos[Waiting], `
		select i.id, i.kind, i.connector, coalesce(last.attempt, 0),
		  coalesce(last.detail, 'no attempt has been made yet'), coalesce(last.at, i.updated_at)
		  from credentials i left join lateral (
		    select e.attempt, e.detail, e.at from evidence e
		     where e.tenant_id = $1 and e.item_id = i.id and e.event_id = $2 and e.outcome in ('failed', 'alive', 'unknown')
		       and e.step not in ('probe-before', 'prove-possession')
		     order by e.id desc limit 1) last on true
		 where i.tenant_id = $1 and i.event_id = $2 and i.state = 'ending'
		 order by 6 limit $3`, tenant, event, limit)
	if err != nil {
		return nil, fmt.Errorf("list pending items of cascade %s: %w", event, err)
	}
	return waiting, nil
}
