package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/registry"
)

// sizes are the numbers of a leaver's credentials, and of the floor's activities.
var sizes = []int{1, 10, 100, 1000, 5000}

// floorChild is the maximum number of activities of one of the floor's workflows. It keeps
// histories far below Temporal's limits.
const floorChild = 500

// BenchmarkFloor runs a bare workflow with as many no-op activities as a cascade
// has credentials, on the same server.
func BenchmarkFloor(b *testing.B) {
	i := installAPI(b)
	w := worker.New(i.app.Temporal, "floor", worker.Options{})
	w.RegisterWorkflow(floorWorkflow)
	w.RegisterWorkflow(floorParent)
	w.RegisterActivity(noop)
	if err := w.Start(); err != nil {
		b.Fatal(err)
	}
	defer w.Stop()
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				flow := any(floorWorkflow)
				if n > floorChild {
					flow = floorParent
				}
				run, err := i.app.Temporal.ExecuteWorkflow(b.Context(), client.StartWorkflowOptions{TaskQueue: "floor"}, flow, n)
				if err != nil {
					b.Fatal(err)
				}
				if err := run.Get(b.Context(), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func floorWorkflow(ctx workflow.Context, n int) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	futures := make([]workflow.Future, n)
	for i := range futures {
		futures[i] = workflow.ExecuteActivity(ctx, noop)
	}
	for _, f := range futures {
		if err := f.Get(ctx, nil); err != nil {
			return err
		}
	}
	return nil
}

// floorParent runs bare child workflows with n no-op activities among them.
func floorParent(ctx workflow.Context, n int) error {
	var children []workflow.Future
	for ; n > 0; n -= floorChild {
		children = append(children, workflow.ExecuteChildWorkflow(ctx, floorWorkflow, min(n, floorChild)))
	}
	for _, child := range children {
		if err := child.Get(ctx, nil); err != nil {
			return err
		}
	}
	return nil
}

func noop(context.Context) error { return nil }

// noopConnector confirms every revocation at once, so that a benchmark measures the cascade.
type noopConnector struct{}

func (noopConnector) Accepts(r connectors.Registration) (string, error) { return r.Reference, nil }
func (noopConnector) Close()                                            {}
func (noopConnector) Revoke(context.Context, connectors.Target) (connectors.Answer, error) {
	return connectors.Answer{Outcome: connectors.Done}, nil
}

// BenchmarkCascade measures the Leaver workflow of a principal with n
// credentials, from its start to its end, without the SCIM request.
func BenchmarkCascade(b *testing.B) {
	i := installAPI(b)
	i.app.Connectors = registry.Registry{"noop": {Connector: noopConnector{}, Tenants: []string{registry.AllTenants}}}
	i.work()
	i.benchmark(b, "noop", sizes...)
}

// BenchmarkREST is BenchmarkCascade with a connector of a definition, whose downstream serves a probe, an end and a
// probe for each credential.
func BenchmarkREST(b *testing.B) {
	i := install(b, withDefinition(b, benchmarkServer(b), keyServer))
	i.benchmark(b, "keys", 100, 1000)
}

// BenchmarkBulk is BenchmarkREST with a definition that ends up to 1,000 credentials with one request.
func BenchmarkBulk(b *testing.B) {
	i := install(b, withDefinition(b, benchmarkServer(b), inBulk(keyServer)))
	i.benchmark(b, "keys", 100, 1000)
}

// inBulk returns the definition keyServer with one request for many keys.
func inBulk(definition string) string {
	return strings.Replace(definition, `{method: DELETE, url: "{url}/keys/{reference}"}`,
		`{method: POST, url: "{url}/end", json: {keys: ["{reference}"]}}`+"\n    batch: 1000", 1)
}

// benchmarkServer starts a server for the definition keyServer, alone and in bulk.
func benchmarkServer(b *testing.B) (address string) {
	b.Helper()
	var ended sync.Map // by path
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.Method {
		case http.MethodDelete:
			ended.Store(r.URL.Path, true)
			w.WriteHeader(http.StatusNoContent)
		case http.MethodPost:
			var list struct{ Keys []string }
			_ = json.NewDecoder(r.Body).Decode(&list)
			for _, key := range list.Keys {
				ended.Store("/keys/"+key, true)
			}
			w.WriteHeader(http.StatusNoContent)
		default:
			_, dead := ended.Load(r.URL.Path)
			_, _ = fmt.Fprintf(w, `{"active":%t}`, !dead)
		}
	}))
	b.Cleanup(server.Close)
	return server.URL
}

func (i *installation) benchmark(b *testing.B, connector string, sizes ...int) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				event := i.leaver(b, connector, n)
				b.StartTimer()
				run, err := i.app.Starter().Start(b.Context(), event)
				if err != nil {
					b.Fatal(err)
				}
				var report cascade.Report
				if err := i.app.Temporal.GetWorkflow(b.Context(), event.WorkflowID, run).Get(b.Context(), &report); err != nil {
					b.Fatal(err)
				}
				if report.Revoked+report.Verified != n {
					b.Fatalf("the cascade reports %+v, want %d ended", report, n)
				}
				b.ReportMetric(float64(i.longestHistory(b, event.WorkflowID)), "events")
			}
		})
	}
}

// BenchmarkSingly is BenchmarkCascade with one activity for each credential, as for connectors
// with a rate limit. The difference to BenchmarkCascade is the gain of batches.
func BenchmarkSingly(b *testing.B) {
	i := installAPI(b)
	i.app.Connectors = registry.Registry{
		"noop": {Connector: noopConnector{}, Tenants: []string{registry.AllTenants}, Rate: 100_000},
	}
	i.work()
	i.benchmark(b, "noop", sizes...)
}

// leaver returns the committed, but not started, leaver event of a new principal
// with n credentials at a connector.
func (i *installation) leaver(b *testing.B, connector string, n int) lifecycle.Event {
	b.Helper()
	user := uuid.MustParse(i.createUser(uuid.NewString()))
	i.register(connector, user, n)
	i.sql(`analyze credentials`) // as autovacuum does within a minute
	i.quiet()                    // the joiner has ended
	capture := &captured{}
	writer := lifecycle.NewWriter(i.app.DB, capture, i.app.Log)
	defer writer.Close()
	if _, err := writer.Delete(b.Context(), i.tenant.ID, "User", user,
		lifecycle.Cause{Trigger: lifecycle.TriggerDelete, Actor: "benchmark"}, nil); err != nil {
		b.Fatal(err)
	}
	return capture.event
}

// register registers n credentials of a principal at a connector.
func (i *installation) register(connector string, user uuid.UUID, n int) {
	i.t.Helper()
	items := make([]credential.New, n)
	for c := range items {
		items[c] = credential.New{
			Principal: user, Kind: connectors.APIKey, Connector: connector, Reference: fmt.Sprintf("%s.%d", user, c), IssuedAt: time.Now(),
		}
	}
	if refused, err := i.app.Credentials().RegisterAll(i.t.Context(), i.tenant.ID, items); err != nil || len(refused) > 0 {
		i.t.Fatal(refused, err)
	}
}

// longestHistory returns the length, in events, of the longest run of a workflow.
func (i *installation) longestHistory(t testing.TB, workflowID string) int64 {
	t.Helper()
	// Visibility lags behind, so the newest run is described directly.
	newest, err := i.app.Temporal.DescribeWorkflowExecution(t.Context(), workflowID, "")
	if err != nil {
		t.Fatal(err)
	}
	longest := newest.GetWorkflowExecutionInfo().GetHistoryLength()
	var page []byte
	for {
		runs, err := i.app.Temporal.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{
			Query: "WorkflowId = '" + workflowID + "'", NextPageToken: page,
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, run := range runs.GetExecutions() {
			longest = max(longest, run.GetHistoryLength())
		}
		if page = runs.GetNextPageToken(); len(page) == 0 {
			return longest
		}
	}
}

// captured stores the event instead of starting its workflow.
type captured struct{ event lifecycle.Event }

func (c *captured) Start(_ context.Context, e lifecycle.Event) (string, error) {
	c.event = e
	return "", nil
}
