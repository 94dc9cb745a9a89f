package temporal_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/activities/connectors/temporal"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

const queue = "agents"

func obedient(ctx workflow.Context) error { return workflow.Sleep(ctx, time.Hour) }

// stubborn ignores cancellation.
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
	return &agents{client: c, runs: make(map[string]string), config: temporal.Config{
		Address: at.Address, Namespace: at.Namespace, Grace: 500 * time.Millisecond,
	}}
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

// schedule creates a schedule that has fired.
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
	return connectors.Target{Item: uuid.New(), Kind: connectors.ScheduledRun, Reference: id}
}

// works reports whether the schedule can fire or has an open run.
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

// paused reports whether the schedule is paused.
func (a *agents) paused(t *testing.T, target connectors.Target) bool {
	t.Helper()
	description, err := a.client.ScheduleClient().GetHandle(t.Context(), target.Reference).Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return description.Schedule.State.Paused
}

func TestTemporal_Contract(t *testing.T) {
	a := newAgents(t)
	down, hanging, pause := a.config, a.config, a.config
	down.Address, hanging.Address, pause.Mode = contract.Closed(t), contract.Silent(t), "pause"
	for mode, c := range map[string]temporal.Config{"delete": a.config, "pause": pause} {
		t.Run(mode, func(t *testing.T) {
			contract.Run(t, contract.Suite{
				Connector: a.connector(t, c), Verifies: true,
				Issue: func(t *testing.T) connectors.Target { return a.schedule(t, obedient) },
				Works: a.works, Blocked: a.paused,
				Down: a.connector(t, down), Hanging: a.connector(t, hanging),
			})
		})
	}
}

func TestCancel_TerminatesRunThatIgnoresCancellation(t *testing.T) {
	a := newAgents(t)
	target := a.schedule(t, stubborn)
	if _, err := a.connector(t, a.config).Cancel(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if a.works(t, target) {
		t.Error("the schedule or its run still works")
	}
}

func TestCancel_RefusesReferenceWithQuotes(t *testing.T) {
	a := newAgents(t)
	_, err := a.connector(t, a.config).Cancel(t.Context(), connectors.Target{
		Reference: "x' or ExecutionStatus = 'Running",
	})
	if !connectors.IsPermanent(err) {
		t.Errorf("%v, want a permanent refusal", err)
	}
}

func TestDiscover_FindsSchedulesBySearchAttribute(t *testing.T) {
	a := newAgents(t)
	a.config.SearchAttribute = "LeaverPrincipal"
	c, ada := a.connector(t, a.config), uuid.New()
	key := sdk.NewSearchAttributeKeyKeyword(a.config.SearchAttribute)
	for id, of := range map[string]uuid.UUID{"hers-" + ada.String(): ada, "his-" + ada.String(): uuid.New()} {
		handle, err := a.client.ScheduleClient().Create(t.Context(), client.ScheduleOptions{
			ID: id, Spec: client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: time.Hour}}},
			Action:                &client.ScheduleWorkflowAction{ID: id, Workflow: obedient, TaskQueue: queue},
			TypedSearchAttributes: sdk.NewSearchAttributes(key.ValueSet(of.String())),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = handle.Delete(context.Background()) })
	}
	var found []connectors.Found
	stacktest.Eventually(t, 20*time.Second, "the schedule in visibility", func() bool {
		var err error
		if found, err = c.Discover(t.Context(), []connectors.Principal{{ID: uuid.New()}, {ID: ada}}); err != nil {
			t.Fatal(err)
		}
		return len(found) > 0
	})
	if len(found) != 1 || found[0].Reference != "hers-"+ada.String() || found[0].Principal != ada {
		t.Errorf("found %+v, want Ada's schedule", found)
	}
}

func TestBlock_PausesTheSchedule(t *testing.T) {
	a := newAgents(t)
	c, target := a.connector(t, a.config), a.schedule(t, obedient)
	for range 2 {
		if answer, err := c.Block(t.Context(), target); err != nil || answer.Outcome != connectors.Done {
			t.Fatalf("block: %+v, %v", answer, err)
		}
	}
	handle := a.client.ScheduleClient().GetHandle(t.Context(), target.Reference)
	if description, err := handle.Describe(t.Context()); err != nil || !description.Schedule.State.Paused {
		t.Errorf("the schedule is not paused: %v", err)
	}
	if err := handle.Unpause(t.Context(), client.ScheduleUnpauseOptions{}); err != nil {
		t.Errorf("unpause: %v", err)
	}
}

func TestIssue_IsRepeatableEndableAndRemovable(t *testing.T) {
	a := newAgents(t)
	c, name := a.connector(t, a.config), "leaver-drill-"+uuid.NewString()
	var issued connectors.Issued
	for range 2 {
		var err error
		if issued, err = c.Issue(t.Context(), name, uuid.New()); err != nil {
			t.Fatal(err)
		}
	}
	target := connectors.Target{Kind: issued.Kind, Reference: issued.Reference}
	if vitality, detail, err := c.Probe(t.Context(), target); err != nil || vitality != connectors.Alive {
		t.Errorf("before: %s (%s), %v; want alive", vitality, detail, err)
	}
	if _, err := c.Cancel(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if vitality, detail, err := c.Probe(t.Context(), target); err != nil || vitality != connectors.Dead {
		t.Errorf("after: %s (%s), %v; want dead", vitality, detail, err)
	}
	for range 2 {
		if err := c.Remove(t.Context(), issued.Reference); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCancel_ClassifiesServerErrors lists errors of the server, and whether they are permanent.
func TestCancel_ClassifiesServerErrors(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds, since the SDK retries")
	}
	a := newAgents(t)
	for code, permanent := range map[codes.Code]bool{
		codes.PermissionDenied: true, codes.InvalidArgument: true,
		codes.ResourceExhausted: false, codes.Unavailable: false, codes.Internal: false, codes.DeadlineExceeded: false,
		codes.Unknown: false,
	} {
		t.Run(code.String(), func(t *testing.T) {
			config := a.config
			config.Address = refuses(t, code)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the SDK retries some errors
			defer cancel()
			_, err := a.connector(t, config).Cancel(ctx, connectors.Target{
				Kind: connectors.ScheduledRun, Reference: "x",
			})
			if err == nil || connectors.IsPermanent(err) != permanent {
				t.Errorf("%v; want permanent %t", err, permanent)
			}
		})
	}
}

// TestCancel_PresentsACertificate asks a server that serves only clients with a certificate of its authority.
func TestCancel_PresentsACertificate(t *testing.T) {
	a, authority := newAgents(t), stacktest.NewAuthority(t, "authority")
	authority.Issue("leaver", 3)
	config := a.config
	config.Address = authority.Guard("tcp", a.config.Address)
	config.CAFile = authority.File("authority.pem")
	target := a.schedule(t, obedient)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the SDK retries
	defer cancel()
	if _, err := a.connector(t, config).Cancel(ctx, target); err == nil || connectors.IsPermanent(err) {
		t.Errorf("without a certificate: %v, want an error to retry", err)
	}
	config.CertFile, config.KeyFile = authority.File("leaver.pem"), authority.File("leaver.key")
	if _, err := a.connector(t, config).Cancel(t.Context(), target); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	config.KeyFile = ""
	if _, err := temporal.New(config); err == nil || !strings.HasPrefix(err.Error(), "ca_file, cert_file and key_file:") {
		t.Errorf("without the key: %v", err)
	}
}

// refuses returns the address of a server that returns the code to every call.
func refuses(t *testing.T, code codes.Code) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, call grpc.ServerStream) error {
		if method, _ := grpc.MethodFromServerStream(call); strings.HasSuffix(method, "/GetSystemInfo") {
			return status.Error(codes.Unimplemented, "an old server") // which clients accept
		}
		return status.Error(code, "no")
	}))
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// TestCancel_RetriesNetworkFaults checks faults of gRPC connections, as from a proxy or a
// dead node.
func TestCancel_RetriesNetworkFaults(t *testing.T) {
	a := newAgents(t)
	target := connectors.Target{Kind: connectors.ScheduledRun, Reference: "x"}
	contract.RunFaults(t, target, func(ctx context.Context, address string) error {
		config := a.config
		config.Address = address
		_, err := a.connector(t, config).Cancel(ctx, target)
		return err
	})
}
