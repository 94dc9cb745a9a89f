package e2e

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// tenantUsers returns the number of the tenant's users, a tenth of whom are in the
// group: LEAVER_BENCH_USERS, or 100,000.
func tenantUsers() int {
	if n, err := strconv.Atoi(os.Getenv("LEAVER_BENCH_USERS")); err == nil {
		return n
	}
	return 100_000
}

// BenchmarkTenant changes the rules of a tenant, and fills, renames and deletes a large group. It
// reports how long the re-evaluation of all entitlements takes, the process's memory, the longest
// history, and the latency of the SCIM requests. Run it with -benchtime 1x.
func BenchmarkTenant(b *testing.B) {
	for b.Loop() {
		i := installAPI(b)
		pool, err := pgxpool.New(b.Context(), i.cfg.Database.MigrateURL)
		if err != nil {
			b.Fatal(err)
		}
		n := tenantUsers()
		if _, err := pool.Exec(b.Context(), `
			insert into resources (tenant_id, id, type, unique_name, active, document, created_at, modified_at)
			select $1, gen_random_uuid(), 'User', 'user' || i || '@example.com', true,
			       jsonb_build_object('userName', 'user' || i || '@example.com', 'active', true,
			                          'userType', 'Employee', 'title', 'Engineer'), now(), now()
			  from generate_series(1, $2) i`, i.tenant.ID, n); err != nil {
			b.Fatal(err)
		}
		if _, err := pool.Exec(b.Context(), `vacuum analyze`); err != nil {
			b.Fatal(err)
		}
		i.work()
		group := i.createGroup("everybody-else")
		inner := i.createGroup("inner")
		i.join(inner, group) // nested
		count := func(name string) (held int) {
			if err := pool.QueryRow(b.Context(), `select count(*) from entitlements where tenant_id = $1 and name = $2`,
				i.tenant.ID, name).Scan(&held); err != nil {
				b.Fatal(err)
			}
			return held
		}
		step := func(name string, change func(), entitlement string, want int) {
			b.Helper()
			peak := newPeak()
			start := time.Now()
			change()
			responded := time.Since(start)
			stacktest.Eventually(b, 10*time.Minute, name, func() bool { return count(entitlement) == want })
			b.ReportMetric(time.Since(start).Seconds(), name+"-s")
			b.ReportMetric(responded.Seconds()*1000, name+"-response-ms")
			b.ReportMetric(float64(peak.stop())/(1<<20), name+"-MiB")
		}
		step("rules", func() {
			i.apply("  - {when: 'user.userType == \"Employee\"', role: staff}\n  - {group: inner, team: Engineering}\n")
		}, "role:staff", n)
		step("members", func() {
			if _, err := pool.Exec(b.Context(), `
				insert into edges (tenant_id, source_id, attribute, target_id)
				select $1, $2, 'members', id from resources
				 where tenant_id = $1 and type = 'User' order by id limit $3`, i.tenant.ID, group, n/10-1); err != nil {
				b.Fatal(err)
			}
			i.join(group, i.createUser("last@example.com")) // a change through SCIM starts the synchronisation
		}, "team:Engineering", n/10)
		step("rename", func() {
			i.patch("/Groups/"+inner, `{"op":"replace","path":"displayName","value":"outer"}`)
		}, "team:Engineering", 0)
		step("rename-back", func() {
			i.patch("/Groups/"+inner, `{"op":"replace","path":"displayName","value":"inner"}`)
		}, "team:Engineering", n/10)
		step("delete", func() { i.raw("DELETE", "/scim/v2/Groups/"+group, i.scim, "") }, "team:Engineering", 0)
		step("rules-gone", func() { i.apply("  - {group: nobody, team: x}\n") }, "role:staff", 0)
		b.ReportMetric(float64(longestSync(b, i)), "longest-history-events")
		pool.Close()
		if i.stopWork != nil {
			i.stopWork()
		}
	}
}

// longestSync returns the length of the longest history of the tenant's synchronisations, in events.
func longestSync(b *testing.B, i *installation) (longest int64) {
	b.Helper()
	rows, err := i.app.Temporal.ListWorkflow(b.Context(), &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("LeaverTenant = '%s' and WorkflowType = 'TeamSync'", i.tenant.ID),
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, e := range rows.GetExecutions() {
		if !strings.HasPrefix(e.GetExecution().GetWorkflowId(), "team-sync/") {
			continue
		}
		longest = max(longest, e.GetHistoryLength())
	}
	return longest
}

// peak measures the maximum of the heap in use, in bytes.
type peak struct {
	cancel context.CancelFunc
	most   chan uint64
}

func newPeak() *peak {
	ctx, cancel := context.WithCancel(context.Background())
	p := &peak{cancel: cancel, most: make(chan uint64, 1)}
	runtime.GC()
	go func() {
		var most uint64
		var m runtime.MemStats
		for {
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
			select {
			case <-ctx.Done():
				p.most <- most
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return p
}

func (p *peak) stop() uint64 {
	p.cancel()
	return <-p.most
}
