package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// TestRotation_WorkerKilledAtAnyStepLeavesOneWorkingSecret kills the worker process after the
// downstream work of each step and before the step is stored, and starts another worker.
func TestRotation_WorkerKilledAtAnyStepLeavesOneWorkingSecret(t *testing.T) {
	long(t)
	p := newPlatform(t)
	owner := stacktest.NewDownstream(t)
	t.Setenv("TEST_CRM", owner)
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
			t.Parallel() // it mostly waits for a heartbeat timeout
			d := &crm{t: t, owner: owner}
			i := installAPI(t, withConnectors(list), func(c *config.Config) { c.Temporal = stacktest.OwnTemporal(t) })
			ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
			role, old := d.account()
			hers, his := i.holdAccount(ada, role, old, ""), i.holdAccount(bob, role, old, "")
			stalled := i.stallWrites("rotations", storing)
			worker := i.process([]string{"worker"}, list)
			i.deactivate(ada)
			stalled.awaitOne()
			i.kill(worker)
			stalled.discard()
			i.process([]string{"worker"}, list)
			item := i.rotatedOnce(d, ada, role, old, hers, his)
			p.mu.Lock()
			defer p.mu.Unlock()
			if sent := p.published[item.Reference]; len(sent) == 0 || sent[len(sent)-1] != item.Secret.Reveal() {
				t.Errorf("the other holder's platform received %d secrets, want the current one last", len(sent))
			}
		})
	}
}

// stalledWrites blocks writes of a table.
type stalledWrites struct {
	i    *installation
	conn *pgx.Conn
}

// stallWrites blocks the updates of a table that meet a condition, until they are discarded.
func (i *installation) stallWrites(table, condition string) stalledWrites {
	i.t.Helper()
	conn := i.connect()
	for _, sql := range []string{
		`select pg_advisory_lock(1)`,
		`create function wait_for_test() returns trigger language plpgsql as $$ begin
		   perform pg_advisory_xact_lock(1); return new; end $$`,
		fmt.Sprintf(`create trigger wait_for_test before update on %s for each row when (%s) execute function wait_for_test()`,
			table, condition),
	} {
		if _, err := conn.Exec(i.t.Context(), sql); err != nil {
			i.t.Fatalf("%s: %v", strings.Fields(sql)[0], err)
		}
	}
	return stalledWrites{i, conn}
}

const stalledSessions = ` from pg_stat_activity where datname = current_database() and wait_event = 'advisory'`

// awaitOne waits until a write is blocked.
func (s stalledWrites) awaitOne() {
	s.i.t.Helper()
	stacktest.Eventually(s.i.t, 30*time.Second, "a blocked write", func() bool {
		var n int
		err := s.conn.QueryRow(s.i.t.Context(), `select count(*)`+stalledSessions).Scan(&n)
		return err == nil && n > 0
	})
}

// discard terminates the sessions with blocked writes, as if they were disconnected, and stops
// blocking writes.
func (s stalledWrites) discard() {
	s.i.t.Helper()
	stacktest.Eventually(s.i.t, 30*time.Second, "the end of the dead worker's session", func() bool {
		var n int
		err := s.conn.QueryRow(s.i.t.Context(), `select count(pg_terminate_backend(pid))`+stalledSessions).Scan(&n)
		return err == nil && n == 0
	})
	if _, err := s.conn.Exec(s.i.t.Context(), `drop function wait_for_test() cascade`); err != nil {
		s.i.t.Fatal(err)
	}
}
