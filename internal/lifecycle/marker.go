package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/database"
)

const (
	// markEvery is how long a start may wait to be stored, well below [grace]:
	// later the relay would start it again, which is harmless and needless.
	markEvery   = 50 * time.Millisecond
	markTimeout = 5 * time.Second
)

// marker stores which events were started, many at a time and behind the
// requests' backs. What it loses in a crash the relay finds undelivered, and
// starts again under the same id.
type marker struct {
	db      *database.DB
	log     *slog.Logger
	mu      sync.Mutex
	pending map[uuid.UUID]*marks // by tenant
	closed  bool
	wake    chan struct{}
	running sync.WaitGroup
}

type marks struct {
	events []uuid.UUID
	runs   []string
}

func newMarker(db *database.DB, log *slog.Logger) *marker {
	m := &marker{db: db, log: log, pending: make(map[uuid.UUID]*marks), wake: make(chan struct{}, 1)}
	m.running.Go(m.run)
	return m
}

func (m *marker) add(e Event, runID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return // the relay will find it
	}
	of := m.pending[e.Tenant]
	if of == nil {
		of = &marks{}
		m.pending[e.Tenant] = of
	}
	of.events, of.runs = append(of.events, e.ID), append(of.runs, runID)
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// close stores what is pending.
func (m *marker) close() {
	m.mu.Lock()
	m.closed = true
	close(m.wake)
	m.mu.Unlock()
	m.running.Wait()
}

func (m *marker) run() {
	for range m.wake {
		m.store()
		time.Sleep(markEvery) // meanwhile more come
	}
	m.store()
}

func (m *marker) store() {
	m.mu.Lock()
	pending := m.pending
	m.pending = make(map[uuid.UUID]*marks)
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), markTimeout)
	defer cancel()
	for tenant, of := range pending {
		if err := markStarted(ctx, m.db, tenant, of.events, of.runs); err != nil {
			m.log.Warn("started workflows are not stored as such; the relay will find them", "error", err)
		}
	}
}

func markStarted(ctx context.Context, db *database.DB, tenant uuid.UUID, events []uuid.UUID, runs []string) error {
	err := database.Exec(ctx, db, tenant, `
		update lifecycle_events e set started_at = now(), run_id = s.run_id, last_error = null
		  from unnest($2::uuid[], $3::text[]) s (id, run_id)
		 where e.tenant_id = $1 and e.id = s.id and e.started_at is null`, tenant, events, runs)
	if err != nil {
		return fmt.Errorf("store %d started events: %w", len(events), err)
	}
	return nil
}
