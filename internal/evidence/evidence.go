// Package evidence keeps what shows that a credential is dead: a row for each
// step of each attempt, append-only. Temporal's history keeps only the last
// attempt, and only until its retention ends.
package evidence

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// maxDetail bounds a detail in bytes: it is a reason, not a transcript.
const maxDetail = 500

// Record is one step of one attempt at one item.
type Record struct {
	Item       uuid.UUID `json:"itemId"`
	Event      uuid.UUID `json:"cascadeId"`
	WorkflowID string    `json:"workflowId"`
	RunID      string    `json:"runId"`
	ActivityID string    `json:"activityId"`
	Attempt    int       `json:"attempt"`
	Step       string    `json:"step"`    // probe-before, revoke, rotate, cancel, probe-after
	Outcome    string    `json:"outcome"` // alive, dead, unknown, done, gone, refused, failed
	Detail     string    `json:"detail,omitempty"`
	At         time.Time `json:"at"` // when the step ended
}

// Store appends and reads evidence.
type Store struct {
	db *database.DB
}

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store { return &Store{db: db} }

// Append adds records in their order, in the caller's transaction.
func Append(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, records ...Record) error {
	if len(records) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	for _, r := range records {
		batch.Queue(`
			insert into evidence (tenant_id, item_id, event_id, workflow_id, run_id, activity_id, attempt, step, outcome, detail, at)
			values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
			tenant, r.Item, r.Event, r.WorkflowID, r.RunID, r.ActivityID, r.Attempt, r.Step, r.Outcome, truncate(r.Detail), r.At)
	}
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("append evidence: %w", err)
	}
	return nil
}

// Append adds records in a transaction of their own.
func (s *Store) Append(ctx context.Context, tenant uuid.UUID, records ...Record) error {
	return s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error { return Append(ctx, tx, tenant, records...) })
}

// SawAlive tells whether any attempt of the cascade saw the item alive: the
// positive control without which a negative proves nothing (I6).
func (s *Store) SawAlive(ctx context.Context, tenant, item, event uuid.UUID) (bool, error) {
	var saw bool
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			select exists (select 1 from evidence
			 where tenant_id = $1 and item_id = $2 and event_id = $3 and step = 'probe-before' and outcome = 'alive')`,
			tenant, item, event).Scan(&saw)
	})
	if err != nil {
		return false, fmt.Errorf("look for a positive control: %w", err)
	}
	return saw, nil
}

// ByEvent returns a page of a cascade's evidence in the order of writing, after
// the record with that number; the numbers come beside the records.
func (s *Store) ByEvent(ctx context.Context, tenant, event uuid.UUID, after int64, limit int) (records []Record, last int64, err error) {
	err = s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			select id, item_id, event_id, workflow_id, run_id, activity_id, attempt, step, outcome, detail, at from evidence
			 where tenant_id = $1 and event_id = $2 and id > $3 order by id limit $4`, tenant, event, after, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r Record
			if err := rows.Scan(&last, &r.Item, &r.Event, &r.WorkflowID, &r.RunID, &r.ActivityID, &r.Attempt, &r.Step, &r.Outcome, &r.Detail, &r.At); err != nil {
				return err
			}
			records = append(records, r)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, 0, fmt.Errorf("read evidence: %w", err)
	}
	return records, last, nil
}

func truncate(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	s = s[:maxDetail]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}
