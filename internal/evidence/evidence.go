// Package evidence stores the evidence that a credential is dead: an append-only row for each step of
// each attempt. Temporal's history has only the last attempt, and only until its retention ends.
//
// It also chains all records of a tenant by hash, signs checkpoints, exports and verifies the chain, and
// archives workflow histories.
package evidence

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// maxDetail limits a detail, in bytes: it is a reason, not a transcript.
const maxDetail = 500

// Record is one step of one attempt at one item.
type Record struct {
	Item       uuid.UUID `json:"itemId"`
	Event      uuid.UUID `json:"cascadeId"`
	WorkflowID string    `json:"workflowId"`
	RunID      string    `json:"runId"`
	ActivityID string    `json:"activityId"`
	Attempt    int       `json:"attempt"`
	Step       string    `json:"step"`    // probe-before, revoke, rotate, cancel, block, probe-after, or a rotation's step
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

// Insert returns the statement that appends records. param is the parameter of their JSON (see
// [Encode]); $1 is the tenant. It can be part of a larger statement.
func Insert(param string) string {
	return `insert into evidence (
		  tenant_id, item_id, event_id, workflow_id, run_id, activity_id, attempt, step, outcome, detail, at)
		select $1, r."itemId", r."cascadeId", r."workflowId", r."runId", r."activityId",
		       r.attempt, r.step, r.outcome, coalesce(r.detail, ''), r.at
		  from jsonb_to_recordset(` + param + `::jsonb) as r (
		       "itemId" uuid, "cascadeId" uuid, "workflowId" text, "runId" text,
		       "activityId" text, attempt int, step text, outcome text, detail text, at timestamptz)`
}

// Encode returns the JSON that [Insert] reads, with details truncated to maxDetail bytes.
func Encode(records []Record) ([]byte, error) {
	bounded := make([]Record, len(records))
	for i, r := range records {
		r.Detail = truncate(r.Detail)
		bounded[i] = r
	}
	encoded, err := json.Marshal(bounded)
	if err != nil {
		return nil, fmt.Errorf("encode evidence: %w", err)
	}
	return encoded, nil
}

// Append adds records in their order.
func (s *Store) Append(ctx context.Context, tenant uuid.UUID, records ...Record) error {
	encoded, err := Encode(records)
	if err != nil {
		return err
	}
	if err := database.Exec(ctx, s.db, tenant, Insert("$2"), tenant, string(encoded)); err != nil {
		return fmt.Errorf("append evidence: %w", err)
	}
	return nil
}

// SawAlive reports whether an attempt of the cascade found the item alive: the positive control without
// which a negative probe proves nothing (I6). If ofAccount is true, a probe of the same account by any
// cascade within a day counts too.
func (s *Store) SawAlive(ctx context.Context, tenant, item, event uuid.UUID, ofAccount bool) (bool, error) {
	saw, err := database.Row(ctx, s.db, tenant, pgx.RowTo[bool], `
		select exists (select 1 from evidence
		 where tenant_id = $1 and item_id = $2 and event_id = $3 and step = 'probe-before' and outcome = 'alive')
		or $4 and exists (
		  select 1 from credentials i
		    join credentials o on o.tenant_id = i.tenant_id and o.connector = i.connector
		     and o.kind = i.kind and o.reference = i.reference
		    join evidence e on e.tenant_id = o.tenant_id and e.item_id = o.id
		     and e.step = 'probe-before' and e.outcome = 'alive' and e.at > now() - interval '1 day'
		   where i.tenant_id = $1 and i.id = $2)`, tenant, item, event, ofAccount)
	if err != nil {
		return false, fmt.Errorf("read the positive control of item %s: %w", item, err)
	}
	return saw, nil
}

// Acted reports whether an attempt of the cascade has acted on the item at its downstream.
func (s *Store) Acted(ctx context.Context, tenant, item, event uuid.UUID) (bool, error) {
	acted, err := database.Row(ctx, s.db, tenant, pgx.RowTo[bool], `
		select exists (select 1 from evidence
		 where tenant_id = $1 and item_id = $2 and event_id = $3
		   and step not in ('probe-before', 'prove-possession'))`, tenant, item, event)
	if err != nil {
		return false, fmt.Errorf("read the attempts at item %s: %w", item, err)
	}
	return acted, nil
}

// Confirmed returns when the downstream last confirmed the end that the cascade requested; nil if it has not.
func (s *Store) Confirmed(ctx context.Context, tenant, item, event uuid.UUID) (*time.Time, error) {
	at, err := database.Row(ctx, s.db, tenant, pgx.RowTo[*time.Time], `
		select max(at) from evidence
		 where tenant_id = $1 and item_id = $2 and event_id = $3 and step = 'revoke' and outcome = 'done'`,
		tenant, item, event)
	if err != nil {
		return nil, fmt.Errorf("read the confirmed end of item %s: %w", item, err)
	}
	return at, nil
}

// Probes summarizes the probes after a downstream has confirmed an item's end.
type Probes struct {
	Failed int  // number of probes without a result
	Alive  bool // a probe found the item alive
}

// ProbesAfter returns the summary of a cascade's probes of an item after its confirmed end.
func (s *Store) ProbesAfter(ctx context.Context, tenant, item, event uuid.UUID) (Probes, error) {
	probes, err := database.Row(ctx, s.db, tenant, pgx.RowToStructByPos[Probes], `
		select count(*) filter (where outcome = 'unknown'), coalesce(bool_or(outcome = 'alive'), false)
		  from evidence
		 where tenant_id = $1 and item_id = $2 and event_id = $3 and step = 'probe-after'`, tenant, item, event)
	if err != nil {
		return Probes{}, fmt.Errorf("read the probes of item %s: %w", item, err)
	}
	return probes, nil
}

// IsBlocked returns the SQL condition that the cascade event has blocked item and not unblocked it since, whatever the
// outcome. item and event are expressions; $1 is the tenant.
func IsBlocked(item, event string) string {
	return `coalesce((select e.step = 'block' from evidence e
		 where e.tenant_id = $1 and e.item_id = ` + item + ` and e.event_id = ` + event + ` and e.step in ('block', 'unblock')
		 order by e.id desc limit 1), false)`
}

// Blocked reports whether a cascade has blocked an item while it was held for approval, and not unblocked it since, or
// whether the downstream has permanently refused that.
func (s *Store) Blocked(ctx context.Context, tenant, item, event uuid.UUID) (bool, error) {
	blocked, err := database.Row(ctx, s.db, tenant, pgx.RowTo[bool], `select `+IsBlocked("$2", "$3"), tenant, item, event)
	if err != nil {
		return false, fmt.Errorf("read whether item %s is blocked: %w", item, err)
	}
	return blocked, nil
}

// ByEvent returns a page of a cascade's evidence in the order of writing, after the record with the
// number after. last is the number of the last record.
func (s *Store) ByEvent(
	ctx context.Context, tenant, event uuid.UUID, after int64, limit int,
) (records []Record, last int64, err error) {
	var r Record
	fields := []any{
		&last, &r.Item, &r.Event, &r.WorkflowID, &r.RunID, &r.ActivityID, &r.Attempt, &r.Step, &r.Outcome, &r.Detail, &r.At,
	}
	collect := database.Each(fields, func() { records = append(records, r) })
	err = database.Together(ctx, s.db, tenant, database.Statement{Args: []any{tenant, event, after, limit}, SQL: `
		select id, item_id, event_id, workflow_id, run_id, activity_id, attempt, step, outcome, detail, at from evidence
		 where tenant_id = $1 and event_id = $2 and id > $3 order by id limit $4`, Collect: collect})
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
