package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/app"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// TestRestore_ReconcilerClosesTheGap dumps PostgreSQL in the middle of 100 cascades, lets them end, and continues with
// the dump: Temporal has completed workflows whose events are open in the database.
func TestRestore_ReconcilerClosesTheGap(t *testing.T) {
	long(t)
	for _, tool := range []string{"pg_dump", "pg_restore"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	const n = 100
	people, held := make([]string, n), make([]string, n)
	for k := range n {
		people[k] = i.createUser(fmt.Sprintf("user-%d@example.com", k))
		held[k] = i.hold(p, people[k], "", fmt.Sprintf("key-%d", k))
	}
	var leaving sync.WaitGroup
	for _, id := range people {
		leaving.Go(func() { i.deactivate(id) })
	}
	ended := func(conn *pgx.Conn) (count int) {
		err := conn.QueryRow(t.Context(),
			`select count(*) from lifecycle_events where kind = 'leaver' and outcome = 'completed'`).Scan(&count)
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	original := i.connect()
	stacktest.Eventually(t, time.Minute, "the first cascades to end", func() bool { return ended(original) >= 10 })
	file := filepath.Join(t.TempDir(), "dump")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	run("pg_dump", "--format=custom", "--file="+file, i.cfg.Database.MigrateURL)
	leaving.Wait()
	stacktest.Eventually(t, time.Minute, "all cascades to end", func() bool { return ended(original) == n })
	i.stopWork()

	empty := stacktest.NewDownstream(t)
	run("pg_restore", "--exit-on-error", "--dbname="+empty, file)
	restored := i.onDatabase(t, empty)
	copied := restored.connect()
	if before := ended(copied); before >= n {
		t.Fatalf("the dump has %d ended cascades of %d: it was not taken in the middle", before, n)
	} else {
		t.Logf("the dump has %d of %d cascades that had ended", before, n)
	}
	// The dump lacks later deactivations: the IdP sends all of them again.
	for _, id := range people {
		restored.deactivate(id)
	}
	restored.work()
	stacktest.Eventually(t, time.Minute, "the reconciler to close the gap", func() bool {
		// The reconciler leaves a cascade alone for five minutes after its start, and the relay starts 32 in 30 seconds.
		_, err := copied.Exec(t.Context(),
			`update lifecycle_events set started_at = started_at - interval '1 hour' where closed_at is null`)
		if err != nil {
			t.Fatal(err)
		}
		restored.reconcile()
		return ended(copied) == n
	})
	for k, id := range held {
		if state := restored.state(id); state != "verified" && state != "absent" && state != "revoked" {
			t.Errorf("key %d is %s, want ended", k, state)
		}
	}
}

// onDatabase returns an API process of the same installation, on another database.
func (i *installation) onDatabase(t *testing.T, ownerURL string) *installation {
	t.Helper()
	owner, err := url.Parse(ownerURL)
	if err != nil {
		t.Fatal(err)
	}
	role, err := url.Parse(i.cfg.Database.URL)
	if err != nil {
		t.Fatal(err)
	}
	role.Path = "/" + path.Base(owner.Path)
	cfg := *i.cfg
	cfg.Database.URL, cfg.Database.MigrateURL = role.String(), ownerURL
	other := *i
	other.cfg, other.t = &cfg, t
	if other.app, err = app.New(t.Context(), &cfg, slog.New(slog.NewJSONHandler(i.logs, nil))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.app.Close)
	server := httptest.NewServer(other.app.Handler())
	t.Cleanup(server.Close)
	other.url = server.URL
	relay, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { other.app.Relay().Run(relay) })
	t.Cleanup(func() { stop(); running.Wait() })
	return &other
}
