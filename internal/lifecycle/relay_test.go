package lifecycle_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/internal/tracing"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// recorder is a Starter that records the actors of started events.
type recorder struct {
	mu      sync.Mutex
	started []string
	traces  []string
}

func (r *recorder) Start(_ context.Context, e lifecycle.Event) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started, r.traces = append(r.started, e.Actor), append(r.traces, e.Trace)
	return "run", nil
}

// outbox is a tenant with leavers that are not started yet.
type outbox struct {
	t    *testing.T
	db   *database.DB
	conn *pgx.Conn
	of   tenant.Tenant
}

func newOutbox(t *testing.T) outbox {
	t.Helper()
	db, d := stacktest.Open(t)
	of, err := tenant.NewStore(db).Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), d.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return outbox{t, db, conn, of}
}

// leave adds n leavers of one actor, created the given time ago, and returns their workflow IDs.
func (o outbox) leave(n int, actor string, ago time.Duration) (workflows []string) {
	o.t.Helper()
	tx := lifecycle.In(o.conn, o.of.ID, lifecycle.Cause{Trigger: lifecycle.TriggerPatch, Actor: actor})
	leavers := make([]lifecycle.Principal, n)
	for i := range leavers {
		leavers[i] = lifecycle.Principal{ID: uuid.New(), Type: "User", Version: 2}
	}
	events, err := tx.Emit(o.t.Context(), lifecycle.Leaver, nil, lifecycle.Emission{}, leavers...)
	if err != nil {
		o.t.Fatal(err)
	}
	for _, e := range events {
		workflows = append(workflows, e.WorkflowID)
	}
	_, err = o.conn.Exec(o.t.Context(), `
		update lifecycle_events set created_at = date_trunc('minute', now()) - $2::interval,
		  due_at = now() - interval '1 second' where workflow_id = any ($1)`,
		workflows, fmt.Sprint(ago))
	if err != nil {
		o.t.Fatal(err)
	}
	return workflows
}

// begun runs the relay once with a limit of atOnce leavers per actor, and counts the started
// events by actor.
func (o outbox) begun(atOnce int) map[string]int {
	o.t.Helper()
	r := &recorder{}
	if _, err := lifecycle.NewRelay(o.db, r, atOnce, slog.New(slog.DiscardHandler)).Once(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
	count := make(map[string]int)
	for _, actor := range r.started {
		count[actor]++
	}
	return count
}

// TestRelay_ContinuesTheTraceOfTheRequest claims an event whose request was traced.
func TestRelay_ContinuesTheTraceOfTheRequest(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	o := newOutbox(t)
	tx := lifecycle.In(o.conn, o.of.ID, lifecycle.NewCause(
		tracing.Continue(t.Context(), parent), lifecycle.TriggerPatch, "okta"))
	emission := lifecycle.Emission{Grace: -time.Second}
	of := lifecycle.Principal{ID: uuid.New(), Type: "User", Version: 2}
	if _, err := tx.Emit(t.Context(), lifecycle.Leaver, nil, emission, of); err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	if _, err := lifecycle.NewRelay(o.db, r, 1, slog.New(slog.DiscardHandler)).Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{parent}, r.traces); diff != "" {
		t.Errorf("the started events (-want +got):\n%s", diff)
	}
}

func TestRelay_BoundsRunningLeaversOfOneSender(t *testing.T) {
	o := newOutbox(t)
	o.leave(20, "okta", time.Hour)
	o.leave(1, "operator", time.Minute)
	if got := o.begun(4); got["okta"] != 4 || got["operator"] != 1 {
		t.Errorf("started %v, want 4 of okta and 1 of operator", got)
	}
	if got := o.begun(4); len(got) != 0 {
		t.Errorf("started %v while the limit is reached, want none", got)
	}
}

func TestRelay_LaterLeaverOvertakesBacklog(t *testing.T) {
	o := newOutbox(t)
	o.leave(20, "okta", 30*time.Second)
	later := o.leave(1, "okta", 20*time.Second)[0]
	o.begun(2)
	rows, err := o.conn.Query(t.Context(), `select workflow_id from lifecycle_events where started_at is not null`)
	if err != nil {
		t.Fatal(err)
	}
	begun, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(begun) != 2 || !slices.Contains(begun, later) {
		t.Errorf("started %v (%v), want one of the backlog and the later one", begun, err)
	}
}
