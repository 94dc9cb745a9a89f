package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/database"
)

const (
	// startDeadline bounds how long a SCIM response waits for Temporal, since identity
	// providers time out. The start continues in the background.
	startDeadline = 250 * time.Millisecond
	// maxConcurrentStarts bounds the number of concurrent starts.
	maxConcurrentStarts = 16
	// maxSenderStarts bounds how many events of one actor are started here per second.
	// SCIM writes can arrive faster than workflows start; the relay starts the rest, round
	// robin over the actors.
	maxSenderStarts = 8
)

// starts counts the starts in progress.
type starts struct {
	mu      sync.Mutex
	all     int
	actors  map[actor]int // starts in this second
	second  int64
	running sync.WaitGroup
}

// actor is the actor of an event within its tenant.
type actor struct {
	tenant uuid.UUID
	actor  string
}

func newStarts() *starts { return &starts{actors: make(map[actor]int)} }

func (s *starts) take(of actor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now().Unix(); now != s.second {
		s.second = now
		clear(s.actors)
	}
	if s.all >= maxConcurrentStarts || s.actors[of] >= maxSenderStarts {
		return false
	}
	s.all++
	s.actors[of]++
	return true
}

func (s *starts) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
}

// dispatch starts the events' workflows, and returns when they are started or
// startDeadline has passed, whichever is first. The relay starts the workflows that
// dispatch does not.
func (w *Writer) dispatch(ctx context.Context, events ...*Event) {
	events = slices.DeleteFunc(events, func(e *Event) bool { return e == nil })
	if len(events) == 0 {
		return
	}
	for _, e := range events {
		if e.Kind == Leaver {
			w.log.Info("deactivation committed", "tenant", e.Tenant, "principal", e.Principal, "trigger", e.Trigger,
				"actor", e.Actor, "workflow", e.WorkflowID)
		}
	}
	// The events are committed even if the client has disconnected.
	ctx = context.WithoutCancel(ctx)
	done := make(chan struct{})
	w.starts.running.Go(func() {
		defer close(done)
		ctx, cancel := context.WithTimeout(ctx, startTimeout)
		defer cancel()
		for _, event := range events {
			w.start(ctx, *event)
		}
	})
	timer := time.NewTimer(startDeadline)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

func (w *Writer) start(ctx context.Context, event Event) {
	if !w.starts.take(actor{event.Tenant, event.Actor}) {
		return
	}
	defer w.starts.give()
	runID, err := w.starter.Start(ctx, event)
	if err != nil {
		w.log.Warn("failed to start workflow; relay will retry", "workflow", event.WorkflowID, "error", err)
		return
	}
	if err := markStarted(ctx, w.db, event, runID); err != nil {
		w.log.Warn("failed to store started workflow; relay will retry", "workflow", event.WorkflowID, "error", err)
	}
}

// markStarted stores the run of an event's workflow.
func markStarted(ctx context.Context, db *database.DB, event Event, runID string) error {
	err := database.Exec(ctx, db, event.Tenant, `
		update lifecycle_events set started_at = now(), run_id = $3, last_error = null
		 where tenant_id = $1 and id = $2 and started_at is null`, event.Tenant, event.ID, runID)
	if err != nil {
		return fmt.Errorf("store the run of event %s: %w", event.ID, err)
	}
	return nil
}
