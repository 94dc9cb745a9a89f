package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/cache"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
)

// Pause is the pause of a connector by an operator.
type Pause struct {
	Connector string    `json:"connector"`
	Since     time.Time `json:"since"`
	By        string    `json:"by"`
	Reason    string    `json:"reason"`
}

// The errors of pauses.
var (
	ErrPaused    = fault.New(fault.Conflict, "the connector is already paused")
	ErrNotPaused = fault.New(fault.Conflict, "the connector is not paused")
)

// remembered is how long a process caches the pauses.
const remembered = time.Second

// Pauses stores which connectors are paused. It caches them for a second, because every attempt reads
// them.
type Pauses struct {
	db     *database.DB
	cached *cache.Cache[struct{}, map[string]Pause]
}

// NewPauses returns the store of pauses on db.
func NewPauses(db *database.DB) *Pauses {
	return &Pauses{db: db, cached: cache.New[struct{}, map[string]Pause](1, remembered)}
}

// Of returns the connector's pause, or nil if it is not paused.
func (p *Pauses) Of(ctx context.Context, connector string) (*Pause, error) {
	pauses, err := p.cached.Get(ctx, struct{}{}, p.All)
	if err != nil {
		return nil, err
	}
	if pause, ok := pauses[connector]; ok {
		return &pause, nil
	}
	return nil, nil //nolint:nilnil // not paused is a value here
}

// All returns the pauses by connector.
func (p *Pauses) All(ctx context.Context) (map[string]Pause, error) {
	all, err := database.Rows(ctx, p.db, uuid.Nil, pgx.RowToStructByPos[Pause], `
		select connector, paused_at, paused_by, reason from connector_pauses where resumed_at is null`)
	if err != nil {
		return nil, fmt.Errorf("list the paused connectors: %w", err)
	}
	pauses := make(map[string]Pause, len(all))
	for _, pause := range all {
		pauses[pause.Connector] = pause
	}
	return pauses, nil
}

// Pause pauses a connector. Error: [ErrPaused].
func (p *Pauses) Pause(ctx context.Context, connector, by, reason string) error {
	return p.write(ctx, audit.ConnectorPause, connector, ErrPaused, `
		insert into connector_pauses (connector, paused_by, reason) values ($1, $2, $3)
		on conflict do nothing returning true`, by, reason)
}

// Resume resumes a connector. Error: [ErrNotPaused].
func (p *Pauses) Resume(ctx context.Context, connector, by, reason string) error {
	return p.write(ctx, audit.ConnectorResume, connector, ErrNotPaused, `
		update connector_pauses set resumed_at = now(), resumed_by = $2, resumed_for = $3
		 where connector = $1 and resumed_at is null returning true`, by, reason)
}

// write runs a statement that returns a row if it changed something, and records the act.
func (p *Pauses) write(ctx context.Context, verb, connector string, unchanged error, sql, by, reason string) error {
	_, err := database.Row(ctx, p.db, uuid.Nil, pgx.RowTo[bool], `
		with done (changed) as (`+sql+`),
		acted as (
		  insert into admin_acts (actor, verb, object, after)
		  select $2, $4, $1, jsonb_build_object('reason', $3::text) from done)
		select changed from done`, connector, by, reason, verb)
	p.cached.Clear()
	if errors.Is(err, pgx.ErrNoRows) {
		return unchanged
	}
	if err != nil {
		return fmt.Errorf("store %s of connector %s: %w", verb, connector, err)
	}
	return nil
}
