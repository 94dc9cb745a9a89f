package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	sdkworker "go.temporal.io/sdk/worker"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/app"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/worker"
	"github.com/leaverhq/leaver/workflows"
)

// intruder returns a Temporal client without the key set.
func (i *installation) intruder() client.Client {
	i.t.Helper()
	c, err := client.Dial(client.Options{HostPort: i.cfg.Temporal.Address, Namespace: i.cfg.Temporal.Namespace})
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(c.Close)
	return c
}

// TestTemporal_RejectsInputFromClientWithoutKeySet checks that a Temporal client without the
// key set can neither bypass the deactivation threshold nor end an active user's credential.
func TestTemporal_RejectsInputFromClientWithoutKeySet(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	hers, his := i.hold(p, ada, "", "hers"), i.hold(p, bob, "", "his")
	for n := range 2 {
		i.hold(p, i.createUser("u"+string(rune('a'+n))+"@example.com"), "", "k"+string(rune('a'+n)))
	}
	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"thresholdLeavers":1}`)
	i.sql(`insert into holds (tenant_id, id, leavers) values ($1, $2, 9)`, i.tenant.ID, uuid.New()) // held
	i.deactivate(bob)
	event := i.cascades(bob)[0]
	stacktest.Eventually(t, 20*time.Second, "the cascade that is held", func() bool { return i.state(his) == "ending" })
	input := func(principal string, event uuid.UUID) map[string]any {
		return map[string]any{
			"tenant": i.tenant.ID, "event": event, "principal": principal, "principalType": "User", "sequence": 1e9,
			"trigger": "x", "policy": workflows.DefaultPolicy(),
			"state": map[string]any{"deadline": time.Now().Add(time.Hour)},
		}
	}
	for name, in := range map[string]map[string]any{
		"a held cascade": input(bob, event.ID), "an active user": input(ada, uuid.New()),
	} {
		options := client.StartWorkflowOptions{ID: "intruder-" + uuid.NewString(), TaskQueue: workflows.TaskQueue}
		run, err := i.intruder().ExecuteWorkflow(t.Context(), options, "Leaver", in)
		if err != nil {
			t.Fatal(err)
		}
		if err := run.Get(t.Context(), nil); err == nil {
			t.Errorf("%s: the intruder's workflow completed", name)
		}
	}
	// An input that leaver sealed for another workflow ID.
	history := i.app.Temporal.GetWorkflowHistory(t.Context(), event.WorkflowID, "", false,
		enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	started, err := history.Next()
	if err != nil {
		t.Fatal(err)
	}
	sealed := started.GetWorkflowExecutionStartedEventAttributes().GetInput().GetPayloads()[0]
	options := client.StartWorkflowOptions{ID: "intruder-" + uuid.NewString(), TaskQueue: workflows.TaskQueue}
	run, err := i.intruder().ExecuteWorkflow(t.Context(), options, "Leaver", converter.NewRawValue(sealed))
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Get(t.Context(), nil); err == nil {
		t.Error("a workflow with another workflow's sealed input completed")
	}
	update, err := i.intruder().UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
		WorkflowID: event.WorkflowID, UpdateName: workflows.UpdateWaive, WaitForStage: client.WorkflowUpdateStageCompleted,
		Args: []any{map[string]any{
			"item": his, "by": "operator-token/" + uuid.NewString(), "reason": "approved by Alice",
			"until": time.Now().Add(time.Hour), "at": time.Now(),
		}},
	})
	if err == nil {
		err = update.Get(t.Context(), nil)
	}
	if err == nil {
		t.Error("the intruder's waiver was accepted")
	}
	acts := i.must("GET", "/v1/tenants/acme/cascades/"+event.ID.String()+"/acts", i.operator, "")["items"].([]any)
	if len(acts) != 0 {
		t.Errorf("the audit log has %v, want no acts", acts)
	}
	if i.state(hers) != "live" || !p.isAlive("hers") || !p.isAlive("his") || i.state(his) != "ending" {
		t.Errorf("hers is %s, his %s; want live and ending", i.state(hers), i.state(his))
	}
}

// TestTemporal_ClosesNoLeaverByAnotherWorkflow checks that a workflow of another type, started
// under a leaver's workflow ID with its sealed input, does not close the leaver's event.
func TestTemporal_ClosesNoLeaverByAnotherWorkflow(t *testing.T) {
	for _, kind := range []string{"Joiner", "Mover"} {
		t.Run(kind, func(t *testing.T) {
			i, p, ada, key, cascade := stuck(t)
			history := i.app.Temporal.GetWorkflowHistory(t.Context(), cascade.WorkflowID, "", false,
				enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
			started, err := history.Next()
			if err != nil {
				t.Fatal(err)
			}
			sealed := started.GetWorkflowExecutionStartedEventAttributes().GetInput().GetPayloads()[0]
			if err := i.app.Temporal.TerminateWorkflow(t.Context(), cascade.WorkflowID, "", "an intruder"); err != nil {
				t.Fatal(err)
			}
			options := client.StartWorkflowOptions{ID: cascade.WorkflowID, TaskQueue: workflows.TaskQueue}
			run, err := i.intruder().ExecuteWorkflow(t.Context(), options, kind, converter.NewRawValue(sealed))
			if err != nil {
				t.Fatal(err)
			}
			if err := run.Get(t.Context(), nil); err == nil {
				t.Error("the intruder's workflow completed")
			}
			if c := i.cascades(ada)[0]; c.Outcome == "completed" {
				t.Errorf("the cascade is %s, and the key %s and alive: %t", c.Outcome, i.state(key), p.isAlive("key"))
			}
		})
	}
}

// TestAttempt_RefusesItemsOfOtherCascades checks that an activity does not trust the item in its
// input.
func TestAttempt_RefusesItemsOfOtherCascades(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	hers := i.hold(p, ada, "", "hers")
	i.hold(p, bob, "", "his")
	i.deactivate(bob)
	of := i.cascades(bob)[0].ID
	for name, event := range map[string]uuid.UUID{"another person's event": of, "no event": uuid.New()} {
		var suite testsuite.WorkflowTestSuite
		env := suite.NewTestActivityEnvironment()
		a := i.app.Activities()
		env.RegisterActivity(a)
		_, err := env.ExecuteActivity(a.Revoke, activities.ItemInput{
			Cascade: activities.CascadeRef{Tenant: i.tenant.ID, Event: event, Principal: uuid.MustParse(ada), Sequence: 1e9},
			Item:    uuid.MustParse(hers),
		})
		if err == nil || !strings.Contains(err.Error(), "does not belong to the cascade") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if i.state(hers) != "live" || !p.isAlive("hers") {
		t.Errorf("hers is %s, want live", i.state(hers))
	}
}

func TestCodecServer_EncodesNothing(t *testing.T) {
	i := installAPI(t, func(c *config.Config) { c.Codec.AllowedOrigins = []string{"http://ui"} })
	for path, want := range map[string]int{"/encode": http.StatusNotFound, "/decode": http.StatusOK} {
		req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(`{"payloads":[]}`))
		req.Header.Set("Origin", "http://ui")
		req.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		i.app.Codec().ServeHTTP(answer, req)
		if answer.Code != want {
			t.Errorf("%s was answered %d, want %d", path, answer.Code, want)
		}
	}
}

// TestWorker_WithAnotherKeySetStops checks that a worker stops if another process of the
// installation has sealed with another key set.
func TestWorker_WithAnotherKeySetStops(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, "", "key")
	i.deactivate(ada)
	i.closed(ada)
	other := *i.cfg
	keyset, err := seal.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	other.Seal.Keyset = base64.StdEncoding.EncodeToString(keyset)
	installed, err := app.New(t.Context(), &other, newLogger(i.logs))
	if err != nil {
		t.Fatal(err)
	}
	defer installed.Close()
	if err := installed.Work(t.Context()); !errors.Is(err, seal.ErrUnknownKey) {
		t.Errorf("the worker ended with %v, want ErrUnknownKey", err)
	}
}

// TestWorkflow_WaitsForWorkerWithItsKey checks that a worker with another key set fails the
// workflow task, but not the workflow.
func TestWorkflow_WaitsForWorkerWithItsKey(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()), func(c *config.Config) { c.Temporal = stacktest.OwnTemporal(t) })
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, "", "key")
	keyset, err := seal.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New(keyset)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := worker.NewClient(i.cfg.Temporal, sealer, newLogger(i.logs), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	workers := worker.New(foreign, i.app.Activities())
	if err := workers.Start(); err != nil {
		t.Fatal(err)
	}
	i.deactivate(ada)
	stacktest.Eventually(t, 30*time.Second, "a payload that the worker cannot open", func() bool {
		return sealer.Unopened() > 0
	})
	workers.Stop()
	if status, err := i.app.Starter().Status(context.Background(), i.cascades(ada)[0].WorkflowID, ""); err != nil ||
		status != cascade.WorkflowRunning {
		t.Fatalf("the workflow is %s, %v; want it running", status, err)
	}
	i.work()
	if c := i.closed(ada); c.Outcome != "completed" {
		t.Errorf("cascade %+v, want completed", c)
	}
}

// intrude runs a worker without the key set, which completes the activities of a type without a result.
// It returns once the worker polls the queue.
func (i *installation) intrude(queue, activityType string) {
	i.t.Helper()
	c := i.intruder()
	w := sdkworker.New(c, queue, sdkworker.Options{
		DisableWorkflowWorker: true, Identity: "intruder", MaxConcurrentActivityTaskPollers: 60, // outnumbers leaver's
	})
	w.RegisterActivityWithOptions(func(context.Context) error { return nil }, activity.RegisterOptions{Name: activityType})
	if err := w.Start(); err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(w.Stop)
	stacktest.Eventually(i.t, 20*time.Second, "the intruder's poll", func() bool {
		d, err := c.DescribeTaskQueue(i.t.Context(), queue, enums.TASK_QUEUE_TYPE_ACTIVITY)
		return err == nil && slices.ContainsFunc(d.GetPollers(), func(p *taskqueue.PollerInfo) bool {
			return p.GetIdentity() == "intruder"
		})
	})
}

// TestTemporal_TakesNoResultFromAnotherClient lets another client of the namespace complete an activity
// that asks a connector, without a result.
func TestTemporal_TakesNoResultFromAnotherClient(t *testing.T) {
	i := installAPI(t)
	i.intrude(connectors.TaskQueue("silent"), "Find")
	i.app.Connectors["silent"] = registry.Entry{Connector: unwilling{}, Tenants: []string{"acme"}}
	i.work()
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome == "completed" {
		t.Errorf("the cascade completed, although leaver never asked the connector: %+v", c)
	}
}

// startAgain starts a workflow of a type under the ID and with the sealed input of a closed cascade, as
// another client of the namespace can.
func (i *installation) startAgain(c cascade.Cascade, workflowType string) client.WorkflowRun {
	i.t.Helper()
	// The workflow runs a little longer than its cascade.
	if err := i.app.Temporal.GetWorkflow(i.t.Context(), c.WorkflowID, "").Get(i.t.Context(), nil); err != nil {
		i.t.Fatal(err)
	}
	started, err := i.app.Temporal.GetWorkflowHistory(i.t.Context(), c.WorkflowID, "", false,
		enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT).Next()
	if err != nil {
		i.t.Fatal(err)
	}
	sealed := started.GetWorkflowExecutionStartedEventAttributes().GetInput().GetPayloads()[0]
	options := client.StartWorkflowOptions{
		ID: c.WorkflowID, TaskQueue: workflows.TaskQueue, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}
	run, err := i.intruder().ExecuteWorkflow(i.t.Context(), options, workflowType, converter.NewRawValue(sealed))
	if err != nil {
		i.t.Fatal(err)
	}
	return run
}

// TestTemporal_StartsNoOtherTypeWithSealedInput starts a drill under a leaver's ID, with its input.
func TestTemporal_StartsNoOtherTypeWithSealedInput(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	c := i.closed(ada)
	if err := i.startAgain(c, "Drill").Get(t.Context(), nil); err == nil {
		t.Error("a drill with a leaver's input completed")
	}
	if of := i.must("GET", "/v1/tenants/"+i.tenant.ID.String(), i.operator, ""); of["name"] != "acme" {
		t.Errorf("the tenant's id names %v", of)
	}
	if status, _ := i.call("POST", "/v1/tenants", i.operator,
		`{"name":"`+uuid.NewString()+`","profile":"default"}`); status != http.StatusBadRequest {
		t.Errorf("a tenant named by a UUID answered %d, want 400", status)
	}
}

// TestBlock_LeavesAccountOfRemainingHolder registers a remaining person for an account after the
// cascade that ends it has begun.
func TestBlock_LeavesAccountOfRemainingHolder(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	d := i.newCRM()
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	role, password := d.account()
	item := i.holdAccount(ada, role, password, "")
	i.deactivate(ada)
	event := i.cascades(ada)[0].ID
	i.sql(`update credentials set state = 'ending', event_id = $2 where id = $1`, item, event)
	i.sql(`update lifecycle_events set started_at = now() where id = $1`, event)
	i.holdAccount(bob, role, password, "")
	a := i.app.Activities()
	if _, err := i.activity(a).ExecuteActivity(a.Block, activities.BatchInput{
		Cascade: activities.CascadeRef{Tenant: i.tenant.ID, Event: event, Principal: uuid.MustParse(ada), Sequence: 1},
		Items:   []uuid.UUID{uuid.MustParse(item)},
	}); err != nil {
		t.Fatal(err)
	}
	if !d.logsIn(role, password) {
		t.Error("the remaining holder is locked out of the account")
	}
}

// TestTemporal_RunsNoCompletedCascadeAgain runs a completed cascade again in Temporal, after its user has
// returned.
func TestTemporal_RunsNoCompletedCascadeAgain(t *testing.T) {
	p, r := newPlatform(t), newReceiver(t)
	i := install(t, withConnectors(p.connector()), withPrivateReceivers)
	i.relaysSignals()
	i.stream(r, i.token(i.tenant.ID, auth.ClassReceiver))
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, "", "key")
	i.deactivate(ada)
	c := i.closed(ada)
	revoked := func() (n int) {
		for _, e := range r.events(ada) {
			if e == "session-revoked" {
				n++
			}
		}
		return n
	}
	stacktest.Eventually(t, 20*time.Second, "the event of the deactivation", func() bool { return revoked() == 1 })
	i.patch("/Users/"+ada, `{"op":"replace","path":"active","value":true}`)
	if err := i.startAgain(c, "Leaver").Get(t.Context(), nil); err == nil {
		t.Error("a completed cascade ran again")
	}
	i.patch("/Users/"+ada, `{"op":"replace","path":"title","value":"back"}`)
	stacktest.Eventually(t, 20*time.Second, "a later event", func() bool {
		return slices.Contains(r.events(ada), "urn:ietf:params:scim:event:prov:patch:notice")
	})
	if n := revoked(); n != 1 {
		t.Errorf("session-revoked was sent %d times, want once", n)
	}
}
