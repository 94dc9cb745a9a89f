// Package health stores the results of the reconciler and of the nightly self-test (drill), and reads
// the health of the installation for alerts.
package health

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Kind is the kind of a scheduled run.
type Kind string

// The kinds.
const (
	Reconcile Kind = "reconcile"
	Drill     Kind = "drill"
)

// Store stores the results of runs and reads the installation's health.
type Store struct {
	db *database.DB
}

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store { return &Store{db} }

// Record stores the result of a run.
func (s *Store) Record(ctx context.Context, kind Kind, passed bool, result any) error {
	encoded, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	err = database.Exec(ctx, s.db, uuid.Nil,
		`insert into self_tests (kind, passed, result) values ($1, $2, $3)`, kind, passed, encoded)
	if err != nil {
		return fmt.Errorf("store the result of a %s run: %w", kind, err)
	}
	return nil
}

// Health is the health of the whole installation.
type Health struct {
	Unstarted int64 // events without a workflow after a minute
	Survivors int64
	Waived    int64
	Unmanaged int64
	Holds     int64 // tenants with cascades that are held for approval
	// Invalidations and Signals are the ages of the oldest change that has not been evaluated and of
	// the oldest undelivered signal, in seconds.
	Invalidations, Signals float64
	Running                int64   // cascades that are open and not held
	Oldest                 float64 // age of the oldest of them, in seconds
	NotBegun               int64   // started over a minute ago, but not run by a worker
	Stalled                float64 // longest time without progress of one of them, in seconds
	NotAsked               int64   // failed because the discovery of a connector failed
	Unchained              int64   // records that are not in their hash chain yet
	Unsigned               float64 // age of the oldest last checkpoint with later records, in seconds
	Unarchived             int64   // cascades that closed over 10 minutes ago, without an archived history
	// ZeroMedian, ZeroP95 and ZeroWorst are the times to the last verified death of the last day's leavers, in seconds;
	// nil if there are none.
	ZeroMedian, ZeroP95, ZeroWorst *float64
	// ZeroConnectors has the times of the same leavers to the last verified death at each connector with one.
	ZeroConnectors []ConnectorTimes
	SinkFailing    float64 // how long the audit sink has refused evidence, in seconds
	// Scheduled is when each kind of run that is scheduled was first scheduled.
	Scheduled map[Kind]time.Time
	// Passed and Failed are when each kind of run last passed and last failed, if it did.
	Passed, Failed map[Kind]time.Time
}

// ConnectorTimes are the times to the last verified death at a connector, in seconds.
type ConnectorTimes struct {
	Connector          string
	Median, P95, Worst float64
}

// Read reads counts over all tenants, and no data of a tenant.
func (s *Store) Read(ctx context.Context) (Health, error) {
	h := Health{Scheduled: make(map[Kind]time.Time), Passed: make(map[Kind]time.Time), Failed: make(map[Kind]time.Time)}
	err := s.db.InNoTenant(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `
			select h.unstarted, h.survivors, h.waived, h.unmanaged, h.holds, w.invalidations, w.signals,
			       r.running, r.oldest, r.unbegun, r.stalled, r.unasked, e.unchained, e.unsigned, e.unarchived, e.sink_failing,
			       z.median, z.p95, z.worst
			  from installation_health() h, waiting_health() w, running_health() r, evidence_health() e, zero_health() z`).
			Scan(&h.Unstarted, &h.Survivors, &h.Waived, &h.Unmanaged, &h.Holds, &h.Invalidations, &h.Signals,
				&h.Running, &h.Oldest, &h.NotBegun, &h.Stalled, &h.NotAsked,
				&h.Unchained, &h.Unsigned, &h.Unarchived, &h.SinkFailing, &h.ZeroMedian, &h.ZeroP95, &h.ZeroWorst); err != nil {
			return err
		}
		zeros, err := tx.Query(ctx, `select connector, median, p95, worst from zero_connectors() order by 1`)
		if err != nil {
			return err
		}
		if h.ZeroConnectors, err = pgx.CollectRows(zeros, pgx.RowToStructByPos[ConnectorTimes]); err != nil {
			return err
		}
		scheduled, err := tx.Query(ctx, `select kind, since from self_test_schedules`)
		if err != nil {
			return err
		}
		var of Kind
		var since time.Time
		_, err = pgx.ForEachRow(scheduled, []any{&of, &since}, func() error { h.Scheduled[of] = since; return nil })
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `select kind, passed, max(at) from self_tests group by kind, passed`)
		if err != nil {
			return err
		}
		var kind Kind
		var passed bool
		var at time.Time
		_, err = pgx.ForEachRow(rows, []any{&kind, &passed, &at}, func() error {
			if passed {
				h.Passed[kind] = at
			} else {
				h.Failed[kind] = at
			}
			return nil
		})
		return err
	})
	if err != nil {
		return Health{}, fmt.Errorf("read the installation's health: %w", err)
	}
	return h, nil
}

// Schedule records, as the owner of the tables, the kinds of runs that are scheduled, and
// deletes all others. The time of a kind that is recorded already is kept.
func Schedule(ctx context.Context, conn *pgx.Conn, kinds ...Kind) error {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	_, err := conn.Exec(ctx, `
		with gone as (delete from self_test_schedules where kind <> all ($1))
		insert into self_test_schedules (kind) select unnest($1::text[]) on conflict do nothing`, names)
	if err != nil {
		return fmt.Errorf("store the scheduled kinds of runs: %w", err)
	}
	return nil
}
