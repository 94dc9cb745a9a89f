// Package assurance keeps what shows that deprovisioning works: how the
// reconciler and the nightly drill ended, and the counts that alerts watch.
package assurance

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Kind is what ran.
type Kind string

// The kinds.
const (
	Reconcile Kind = "reconcile"
	Drill     Kind = "drill"
)

// Store reads and writes assurances.
type Store struct {
	db *database.DB
}

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store { return &Store{db} }

// Record stores how a run ended.
func (s *Store) Record(ctx context.Context, kind Kind, passed bool, result any) error {
	encoded, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	if err := database.Exec(ctx, s.db, uuid.Nil, `insert into assurances (kind, passed, result) values ($1, $2, $3)`, kind, passed, encoded); err != nil {
		return fmt.Errorf("record a %s: %w", kind, err)
	}
	return nil
}

// Health is what an operator must know of the whole installation.
type Health struct {
	Unstarted int64 // events that no workflow was started for within a minute
	Survivors int64
	Waived    int64
	Unbound   int64
	Brakes    int64 // held
	// Invalidations and Signals are for how long what was committed has not been computed, and
	// what receivers are to be told has waited, at most; in seconds.
	Invalidations, Signals float64
	// When each kind of run last passed, and last failed; zero is never.
	Passed, Failed map[Kind]time.Time
}

// Health reads the counts of all tenants, and nothing of anybody's.
func (s *Store) Health(ctx context.Context) (Health, error) {
	h := Health{Passed: make(map[Kind]time.Time), Failed: make(map[Kind]time.Time)}
	err := s.db.InNoTenant(ctx, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `
			select h.unstarted, h.survivors, h.waived, h.unbound, h.brakes, w.invalidations, w.signals from installation_health() h, waiting_health() w`).
			Scan(&h.Unstarted, &h.Survivors, &h.Waived, &h.Unbound, &h.Brakes, &h.Invalidations, &h.Signals); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `select kind, passed, max(at) from assurances group by kind, passed`)
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
