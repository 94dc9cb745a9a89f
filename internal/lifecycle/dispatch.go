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
	// startDeadline bounds what a SCIM response waits for Temporal: the IdP's
	// patience is shorter than an outage. The start itself goes on behind its back.
	startDeadline = 250 * time.Millisecond
	// maxConcurrentStarts bounds how many starts are under way at a time.
	maxConcurrentStarts = 16
	// maxSenderStarts bounds how many events of one sender are started at once in a
	// second. Workflows start slower than SCIM writes come: what is over is the
	// relay's, which lets all take their turns.
	maxSenderStarts = 8
)

// starts counts the starts that are under way.
type starts struct {
	mu      sync.Mutex
	all     int
	senders map[sender]int // starts in this second
	second  int64
	running sync.WaitGroup
}

// sender is who sent an event.
type sender struct {
	tenant uuid.UUID
	actor  string
}

func newStarts() *starts { return &starts{senders: make(map[sender]int)} }

func (s *starts) take(of sender) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now().Unix(); now != s.second {
		s.second = now
		clear(s.senders)
	}
	if s.all >= maxConcurrentStarts || s.senders[of] >= maxSenderStarts {
		return false
	}
	s.all++
	s.senders[of]++
	return true
}

func (s *starts) give() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
}

// dispatch starts the events' workflows, and returns when they are started or
// startDeadline has passed, whichever is first. What cannot be started now the
// relay will start; the caller need not know.
func (w *Writer) dispatch(ctx context.Context, events ...*Event) {
	events = slices.DeleteFunc(events, func(e *Event) bool { return e == nil })
	if len(events) == 0 {
		return
	}
	for _, e := range events {
		if e.Kind == Leaver {
			w.log.Info("deactivation committed", "tenant", e.Tenant, "principal", e.Principal, "trigger", e.Trigger, "actor", e.Actor, "workflow", e.WorkflowID)
		}
	}
	// The client may be gone by now; the events are committed all the same.
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
	patience := time.NewTimer(startDeadline)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	}
}

func (w *Writer) start(ctx context.Context, event Event) {
	if !w.starts.take(sender{event.Tenant, event.Actor}) {
		return
	}
	defer w.starts.give()
	runID, err := w.starter.Start(ctx, event)
	if err != nil {
		w.log.Warn("workflow not started yet; the relay will start it", "workflow", event.WorkflowID, "error", err)
		return
	}
	if err := markStarted(ctx, w.db, event, runID); err != nil {
		w.log.Warn("failed to store a started workflow; the relay will find it", "workflow", event.WorkflowID, "error", err)
	}
}

// markStarted stores that an event's workflow runs.
func markStarted(ctx context.Context, db *database.DB, event Event, runID string) error {
	err := database.Exec(ctx, db, event.Tenant, `
		update lifecycle_events set started_at = now(), run_id = $3, last_error = null
		 where tenant_id = $1 and id = $2 and started_at is null`, event.Tenant, event.ID, runID)
	if err != nil {
		return fmt.Errorf("store the run of event %s: %w", event.ID, err)
	}
	return nil
}
