package app

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// TestARotationWhoseWorkerIsKilled kills the worker's process after each step's work
// downstream, before the step is stored: SIGKILL, and another worker goes on.
func TestARotationWhoseWorkerIsKilledAnywhereEndsWithOneWorkingAndOneDeadSecret(t *testing.T) {
	long(t)
	p := newPlatform(t)
	d := &crm{t: t, owner: stacktest.NewDownstream(t)}
	t.Setenv("TEST_CRM", d.owner)
	list := p.connector() + "  - {name: crm, type: postgres, url: env:TEST_CRM, tenants: [acme], publish_to: platform}\n"
	for step, storing := range map[string]string{
		"begun":     "new.step = 'begun' and new.new_reference <> ''",
		"made":      "new.step = 'made'",
		"proven":    "new.step = 'proven'",
		"published": "new.step = 'published'",
		"retired":   "new.step = 'retired'",
		"done":      "new.step = 'done'",
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel() // most of it is waiting for a heartbeat that does not come
			i := installAPI(t, withConnectors(list), func(c *config.Config) { c.Temporal = stacktest.OwnTemporal(t) })
			ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
			role, old := d.account()
			hers, his := i.holdAccount(ada, role, old, ""), i.holdAccount(bob, role, old, "")
			hold := i.holds("rotations", storing)
			worker := i.process([]string{"worker"}, list)
			i.deactivate(ada)
			hold.awaits()
			if err := worker.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_, _ = worker.Process.Wait()
			hold.end()
			i.process([]string{"worker"}, list)
			if c := i.closed(ada); c.Outcome != "completed" || i.state(hers) != "verified" || i.state(his) != "live" {
				t.Fatalf("cascade %+v, hers %s, his %s; want completed, verified, live", c, i.state(hers), i.state(his))
			}
			if d.logsIn(role, old) {
				t.Error("the old secret works")
			}
			made := d.successors(role)
			if len(made) != 1 {
				t.Fatalf("%d secrets were made, want 1: %v", len(made), made)
			}
			item := i.opened(his)
			if item.Reference != made[0] || !d.logsIn(item.Reference, item.Secret.Reveal()) {
				t.Error("the other holder's secret does not work")
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if sent := p.published[item.Reference]; len(sent) == 0 || sent[len(sent)-1] != item.Secret.Reveal() {
				t.Errorf("the other holder's platform was handed %d secrets, and not that last", len(sent))
			}
		})
	}
}

// hold has writes of a table wait.
type hold struct {
	i    *installation
	conn *pgx.Conn
}

// holds has the writes of a table that meet a condition wait, until the hold ends.
func (i *installation) holds(table, condition string) hold {
	i.t.Helper()
	conn, err := pgx.Connect(i.t.Context(), i.cfg.Database.MigrateURL)
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	for _, sql := range []string{
		`select pg_advisory_lock(1)`,
		`create function wait_for_test() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(1); return new; end $$`,
		fmt.Sprintf(`create trigger wait_for_test before update on %s for each row when (%s) execute function wait_for_test()`, table, condition),
	} {
		if _, err := conn.Exec(i.t.Context(), sql); err != nil {
			i.t.Fatalf("%s: %v", strings.Fields(sql)[0], err)
		}
	}
	return hold{i, conn}
}

const heldWrites = ` from pg_stat_activity where datname = current_database() and wait_event = 'advisory'`

// awaits returns once a write waits.
func (h hold) awaits() {
	h.i.t.Helper()
	stacktest.Eventually(h.i.t, 30*time.Second, "the write that is held", func() bool {
		var n int
		err := h.conn.QueryRow(h.i.t.Context(), `select count(*)`+heldWrites).Scan(&n)
		return err == nil && n > 0
	})
}

// end undoes the writes that wait, as those of a session that is gone, and holds none
// any more.
func (h hold) end() {
	h.i.t.Helper()
	stacktest.Eventually(h.i.t, 30*time.Second, "the end of the dead worker's session", func() bool {
		var n int
		err := h.conn.QueryRow(h.i.t.Context(), `select count(pg_terminate_backend(pid))`+heldWrites).Scan(&n)
		return err == nil && n == 0
	})
	if _, err := h.conn.Exec(h.i.t.Context(), `drop function wait_for_test() cascade`); err != nil {
		h.i.t.Fatal(err)
	}
}
