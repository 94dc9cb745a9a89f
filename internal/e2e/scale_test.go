package e2e

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/workflows"
)

// maxHistoryEvents is the maximum length of a history in events; Temporal warns at 10,240.
const maxHistoryEvents = 10_000

// TestCascade_OfThousandsStaysWithinHistoryLimit ends credentials in batches and, at a connector with
// a rate, one by one.
func TestCascade_OfThousandsStaysWithinHistoryLimit(t *testing.T) {
	long(t)
	for name, c := range map[string]struct {
		items     int
		rate      float64
		connector connectors.Connector
	}{
		"in batches":                     {5000, 0, noopConnector{}},
		"one by one":                     {2500, 100_000, noopConnector{}},
		"in batches that fail each once": {2000, 0, &failsOnce{failed: make(map[uuid.UUID]bool)}},
	} {
		t.Run(name, func(t *testing.T) {
			i := installAPI(t, func(c *config.Config) { c.Policy.Deadline = 10 * time.Minute })
			i.app.Connectors = registry.Registry{
				"noop": {Connector: c.connector, Tenants: []string{registry.AllTenants}, Rate: c.rate},
			}
			i.work()
			ada := i.createUser("ada@example.com")
			i.register("noop", uuid.MustParse(ada), c.items)
			i.deactivate(ada)
			// The query returns the progress of the whole cascade, from the current run.
			workflowID := i.cascades(ada)[0].WorkflowID
			ended := func() int {
				var progress workflows.Progress
				answer, err := i.app.Temporal.QueryWorkflow(t.Context(), workflowID, "", workflows.QueryProgress)
				if err != nil || answer.Get(&progress) != nil {
					return 0
				}
				return progress.Counts["revoked"]
			}
			stacktest.Eventually(t, 5*time.Minute, "the end of all", func() bool { return ended() == c.items })
			stacktest.Eventually(t, time.Minute, "the cascade's end", func() bool { return i.cascades(ada)[0].ClosedAt != nil })
			if got := i.cascades(ada)[0]; got.Outcome != "completed" || got.Revoked != c.items {
				t.Errorf("cascade %+v; want completed with %d revoked", got, c.items)
			}
			if n := i.longestHistory(t, workflowID); n > maxHistoryEvents {
				t.Errorf("a history has %d events, want %d at most", n, maxHistoryEvents)
			}
		})
	}
}

// failsOnce is a downstream whose first response for each item is a failure.
type failsOnce struct {
	noopConnector
	mu     sync.Mutex
	failed map[uuid.UUID]bool
}

func (f *failsOnce) Revoke(_ context.Context, t connectors.Target) (connectors.Answer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.failed[t.Item] {
		f.failed[t.Item] = true
		return connectors.Answer{}, connectors.Retryable("not yet")
	}
	return connectors.Answer{Outcome: connectors.Done}, nil
}

func TestCascade_ReadsInventoryByIndex(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, i.createAgent("outreach", ada), "key")
	i.sql(`with others as (
		  insert into resources (tenant_id, id, type, unique_name, active, document, created_at, modified_at)
		  select $1, gen_random_uuid(), 'User', 'other' || n, true, '{}', now(), now()
		    from generate_series(1, 2000) n returning id)
		insert into credentials (tenant_id, id, principal_id, kind, connector, reference, issued_at)
		select $1, gen_random_uuid(), id, 'api_key', 'platform', id || '-' || n, now()
		  from others, generate_series(1, 10) n`, i.tenant.ID)
	i.sql(`analyze`)
	read := func() (rows int) {
		if err := i.connect().QueryRow(t.Context(),
			`select seq_tup_read from pg_stat_user_tables where relname = 'credentials'`).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	before := read()
	i.deactivate(ada)
	if c := i.closed(ada); c.Verified != 1 {
		t.Fatalf("cascade %+v", c)
	}
	i.stopWork()
	i.app.DB.Close() // sessions report their scans when they end
	if n := read() - before; n >= 20000 {
		t.Errorf("%d rows of credentials were read without an index", n)
	}
}
