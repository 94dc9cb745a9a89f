package app

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/inventory"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// sizes are how many credentials a leaver has, and a floor activities.
var sizes = []int{1, 10, 100}

// BenchmarkFloor is a bare workflow with as many no-op activities as a cascade
// has credentials, on the same server.
func BenchmarkFloor(b *testing.B) {
	i := installAPI(b)
	w := worker.New(i.app.temporal, "floor", worker.Options{})
	w.RegisterWorkflow(floorWorkflow)
	w.RegisterActivity(noop)
	if err := w.Start(); err != nil {
		b.Fatal(err)
	}
	defer w.Stop()
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				run, err := i.app.temporal.ExecuteWorkflow(b.Context(), client.StartWorkflowOptions{TaskQueue: "floor"}, floorWorkflow, n)
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

func noop(context.Context) error { return nil }

// noopConnector confirms every end at once: what is measured is the cascade.
type noopConnector struct{}

func (noopConnector) Accepts(inventory.Kind, bool, bool) error { return nil }
func (noopConnector) Close()                                   {}
func (noopConnector) Revoke(context.Context, connectors.Target) (connectors.Answer, error) {
	return connectors.Answer{Outcome: connectors.Done}, nil
}

// BenchmarkCascade is the Leaver workflow of a principal with n credentials,
// from its start to its end; the SCIM request before it is not measured.
func BenchmarkCascade(b *testing.B) {
	i := installAPI(b)
	i.app.connectors = connectors.Registry{"noop": {Connector: noopConnector{}, Tenants: []string{connectors.AllTenants}}}
	i.work()
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				event := i.leaver(b, n)
				b.StartTimer()
				run, err := i.app.starter().Start(b.Context(), event)
				if err != nil {
					b.Fatal(err)
				}
				var report lifecycle.Report
				if err := i.app.temporal.GetWorkflow(b.Context(), event.WorkflowID, run).Get(b.Context(), &report); err != nil {
					b.Fatal(err)
				}
				if report.Revoked != n {
					b.Fatalf("%d revoked, want %d", report.Revoked, n)
				}
			}
		})
	}
}

// leaver makes a principal who holds n credentials and whose leaving is
// committed, but not started.
func (i *installation) leaver(b *testing.B, n int) lifecycle.Event {
	b.Helper()
	user := uuid.MustParse(i.createUser(uuid.NewString()))
	for c := range n {
		_, err := i.app.inventory().Register(b.Context(), i.tenant.ID, inventory.New{
			Principal: user, Kind: inventory.APIKey, Connector: "noop", Reference: fmt.Sprint(c), IssuedAt: time.Now(),
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	capture := &captured{}
	writer := lifecycle.NewWriter(i.app.db, capture, i.app.log)
	defer writer.Close()
	if _, err := writer.Delete(b.Context(), i.tenant.ID, "User", user, lifecycle.Cause{Trigger: lifecycle.TriggerDelete, Actor: "benchmark"}, nil); err != nil {
		b.Fatal(err)
	}
	return capture.event
}

// captured keeps the event that would have been started.
type captured struct{ event lifecycle.Event }

func (c *captured) Start(_ context.Context, e lifecycle.Event) (string, error) {
	c.event = e
	return "", nil
}
