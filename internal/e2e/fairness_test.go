package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/registry"
)

const (
	crowdHolds    = 10 // credentials of each leaver
	crowdRequests = 16 // concurrent requests, as an IdP's connector sends them
)

// crowdSize returns the number of simultaneous leavers: LEAVER_CROWD, or 1000.
func crowdSize() int {
	if n, err := strconv.Atoi(os.Getenv("LEAVER_CROWD")); err == nil {
		return n
	}
	return 1000
}

// memory is an in-memory downstream. A credential is alive until it is revoked.
type memory struct {
	noopConnector
	mu   sync.Mutex
	dead map[string]bool
}

func (m *memory) Revoke(_ context.Context, t connectors.Target) (connectors.Answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead[t.Reference] = true
	return connectors.Answer{Outcome: connectors.Done}, nil
}

func (m *memory) Probe(_ context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead[t.Reference] {
		return connectors.Dead, "", nil
	}
	return connectors.Alive, "", nil
}

// BenchmarkCrowd deactivates crowdSize users through SCIM. When half of the requests are sent, it
// also deactivates a user of another tenant, a user by an operator, and one more user of the same
// actor; when half of the cascades are completed, another user of the same actor. All cascades must
// complete. The floor is as many bare workflows with as many no-op activities. Run it with
// -benchtime 1x.
func BenchmarkCrowd(b *testing.B) {
	crowd := crowdSize()
	for b.Loop() {
		i := installAPI(b)
		i.app.Connectors = registry.Registry{
			"noop": {Connector: &memory{dead: make(map[string]bool)}, Tenants: []string{registry.AllTenants}},
		}
		floor := crowdFloor(b, i, crowd)
		other := *i
		other.tenant, other.scim, other.platform = i.newTenant("umbrella")
		i.work()
		people := i.people(crowd)
		same, foreign, urgent := i.people(6), other.people(5), i.people(1)[0]
		i.quiet() // the joiners have ended
		idleSame, idleForeign := i.alone(same[:4]), other.alone(foreign[:4])

		began := time.Now()
		i.leave(people, func(sent int) {
			if sent == crowd/2 {
				go i.deactivate(same[4])
				go other.deactivate(foreign[4])
				go i.must("POST", "/v1/tenants/acme/principals/"+urgent+"/end", i.operator, `{"reason":"security"}`)
			}
		})
		sent := time.Since(began)
		stacktest.Eventually(b, time.Hour, "half of the crowd", func() bool {
			completed, _ := i.ended()
			return completed > crowd/2
		})
		i.deactivate(same[5])
		stacktest.Eventually(b, time.Hour, "the end of all", func() bool {
			completed, verified := i.ended()
			return completed == crowd+len(same)+1 && verified == (crowd+len(same)+1)*crowdHolds
		})
		took := time.Since(began)
		b.ReportMetric(took.Seconds()/floor.Seconds(), "crowd/floor")
		b.ReportMetric(floor.Seconds(), "floor-s")
		b.ReportMetric(took.Seconds(), "crowd-s")
		b.ReportMetric(sent.Seconds(), "sent-s")
		b.ReportMetric(other.lasted(foreign[4]).Seconds()/idleForeign.Seconds(), "other-tenant's/idle")
		b.ReportMetric(i.lasted(urgent).Seconds()/idleSame.Seconds(), "operator's/idle")
		b.ReportMetric(i.lasted(same[4]).Seconds()/idleSame.Seconds(), "one-more/idle")
		b.ReportMetric(i.lasted(same[5]).Seconds()/idleSame.Seconds(), "later/idle")
		b.ReportMetric(idleForeign.Seconds(), "idle-s")
	}
}

// crowdFloor returns how long crowd bare workflows take.
func crowdFloor(b *testing.B, i *installation, crowd int) time.Duration {
	b.Helper()
	w := worker.New(i.app.Temporal, "floor", worker.Options{MaxConcurrentWorkflowTaskPollers: 4})
	w.RegisterWorkflow(floorWorkflow)
	w.RegisterActivity(noop)
	if err := w.Start(); err != nil {
		b.Fatal(err)
	}
	defer w.Stop()
	began := time.Now()
	runs := make([]client.WorkflowRun, crowd)
	inParallel(crowd, func(n int) {
		run, err := i.app.Temporal.ExecuteWorkflow(b.Context(), client.StartWorkflowOptions{TaskQueue: "floor"},
			floorWorkflow, crowdHolds)
		if err != nil {
			b.Error(err)
		}
		runs[n] = run
	})
	for _, run := range runs {
		if err := run.Get(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(began)
}

func inParallel(n int, do func(int)) {
	slots := make(chan struct{}, crowdRequests)
	var running sync.WaitGroup
	for k := range n {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			do(k)
		})
	}
	running.Wait()
}

// quiet waits until no lifecycle event is open.
func (i *installation) quiet() {
	i.t.Helper()
	conn := i.connect()
	defer func() { _ = conn.Close(i.t.Context()) }()
	stacktest.Eventually(i.t, time.Hour, "quiet", func() bool {
		var busy bool
		err := conn.QueryRow(i.t.Context(),
			`select exists (select 1 from lifecycle_events where closed_at is null)`).Scan(&busy)
		return err == nil && !busy
	})
}

// people creates n users with crowdHolds credentials each, and returns their ids.
func (i *installation) people(n int) []string {
	i.t.Helper()
	ids := make([]string, n)
	for k := range ids {
		ids[k] = i.createUser(uuid.NewString())
		i.register("noop", uuid.MustParse(ids[k]), crowdHolds)
	}
	return ids
}

// leave deactivates the users with crowdRequests concurrent requests. It calls sent before each
// request.
func (i *installation) leave(people []string, sent func(int)) {
	inParallel(len(people), func(n int) {
		sent(n)
		req, err := http.NewRequestWithContext(i.t.Context(), http.MethodPatch, i.url+"/scim/v2/Users/"+people[n],
			strings.NewReader(`{"Operations":[{"op":"replace","path":"active","value":false}]}`))
		if err != nil {
			i.t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+i.scim)
		req.Header.Set("Content-Type", "application/scim+json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			i.t.Error(err)
			return
		}
		_ = resp.Body.Close()
		if resp.StatusCode > 299 {
			i.t.Errorf("deactivation answered %d", resp.StatusCode)
		}
	})
}

// alone returns the mean duration of the users' cascades, one at a time, without
// the first, which warms up.
func (i *installation) alone(people []string) time.Duration {
	i.t.Helper()
	var sum time.Duration
	for n, id := range people {
		i.deactivate(id)
		i.closed(id)
		if n > 0 {
			sum += i.lasted(id)
		}
	}
	return sum / time.Duration(len(people)-1)
}

// lasted returns the time from the commit of the deactivation to the end of the cascade.
func (i *installation) lasted(id string) time.Duration {
	i.t.Helper()
	c := i.closed(id)
	if c.Outcome != "completed" || c.Verified != crowdHolds {
		i.t.Fatalf("cascade %+v; want completed with %d verified", c, crowdHolds)
	}
	return c.ClosedAt.Sub(c.CreatedAt)
}

// ended returns the number of the tenant's completed cascades and of their verified credentials.
func (i *installation) ended() (completed, verified int) {
	i.t.Helper()
	err := i.app.DB.InTenant(i.t.Context(), i.tenant.ID, func(tx pgx.Tx) error {
		return tx.QueryRow(i.t.Context(), `
			select count(*), coalesce(sum(verified), 0) from lifecycle_events
			 where tenant_id = $1 and kind = 'leaver' and outcome = 'completed'`, i.tenant.ID).Scan(&completed, &verified)
	})
	if err != nil {
		i.t.Fatal(fmt.Errorf("count: %w", err))
	}
	return completed, verified
}
