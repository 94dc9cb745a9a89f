package temporal_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/activities/connectors/temporal"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/inventory"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

const queue = "agents"

func obedient(ctx workflow.Context) error { return workflow.Sleep(ctx, time.Hour) }

// stubborn goes on when it is asked to stop.
func stubborn(ctx workflow.Context) error {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	return workflow.Sleep(ctx, time.Hour)
}

type agents struct {
	client client.Client
	runs   map[string]string // a schedule's run, by the schedule's id
	config temporal.Config
}

func newAgents(t *testing.T) *agents {
	t.Helper()
	at := stacktest.Temporal(t)
	c, err := client.Dial(client.Options{HostPort: at.Address, Namespace: at.Namespace})
	if err != nil {
		t.Fatal(err)
	}
	w := worker.New(c, queue, worker.Options{})
	w.RegisterWorkflow(obedient)
	w.RegisterWorkflow(stubborn)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Stop(); c.Close() })
	return &agents{client: c, runs: make(map[string]string), config: temporal.Config{Address: at.Address, Namespace: at.Namespace, Grace: 500 * time.Millisecond}}
}

func (a *agents) connector(t *testing.T, c temporal.Config) *temporal.Connector {
	t.Helper()
	connector, err := temporal.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(connector.Close)
	return connector
}

// schedule makes one that has fired.
func (a *agents) schedule(t *testing.T, run any) connectors.Target {
	t.Helper()
	id := "s-" + uuid.NewString()
	handle, err := a.client.ScheduleClient().Create(t.Context(), client.ScheduleOptions{
		ID: id, TriggerImmediately: true,
		Spec:   client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: time.Hour}}},
		Action: &client.ScheduleWorkflowAction{ID: id, Workflow: run, TaskQueue: queue},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = handle.Delete(context.Background()) })
	stacktest.Eventually(t, 20*time.Second, "the schedule's first run", func() bool {
		description, err := handle.Describe(t.Context())
		if err != nil || len(description.Info.RunningWorkflows) == 0 {
			return false
		}
		a.runs[id] = description.Info.RunningWorkflows[0].WorkflowID
		return true
	})
	return connectors.Target{Item: uuid.New(), Kind: inventory.ScheduledRun, Reference: id}
}

// works tells whether the schedule can fire, or anything of it runs.
func (a *agents) works(t *testing.T, target connectors.Target) bool {
	t.Helper()
	description, err := a.client.ScheduleClient().GetHandle(t.Context(), target.Reference).Describe(t.Context())
	if err == nil && !description.Schedule.State.Paused {
		return true
	}
	run, err := a.client.DescribeWorkflowExecution(t.Context(), a.runs[target.Reference], "")
	if err != nil {
		t.Fatal(err)
	}
	return run.GetWorkflowExecutionInfo().GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING
}

func TestContract(t *testing.T) {
	a := newAgents(t)
	down, hanging, pause := a.config, a.config, a.config
	down.Address, hanging.Address, pause.Mode = contract.Closed(t), contract.Silent(t), "pause"
	for mode, c := range map[string]temporal.Config{"delete": a.config, "pause": pause} {
		t.Run(mode, func(t *testing.T) {
			contract.Run(t, contract.Suite{
				Connector: a.connector(t, c), Verifies: true,
				Issue: func(t *testing.T) connectors.Target { return a.schedule(t, obedient) },
				Works: a.works,
				Down:  a.connector(t, down), Hanging: a.connector(t, hanging),
			})
		})
	}
}

func TestARunThatWillNotStopIsTerminated(t *testing.T) {
	a := newAgents(t)
	target := a.schedule(t, stubborn)
	if _, err := a.connector(t, a.config).Cancel(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if a.works(t, target) {
		t.Error("it still runs")
	}
}

func TestAReferenceThatIsNoScheduleIDIsRefused(t *testing.T) {
	a := newAgents(t)
	_, err := a.connector(t, a.config).Cancel(t.Context(), connectors.Target{Reference: "x' or ExecutionStatus = 'Running"})
	if !connectors.IsPermanent(err) {
		t.Errorf("%v, want a permanent refusal", err)
	}
}
