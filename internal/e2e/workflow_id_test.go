package e2e

import (
	"context"
	"slices"
	"testing"
	"time"

	"go.temporal.io/api/command/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// squat starts a workflow of another client of the namespace, on a task queue of its own.
func (i *installation) squat(options client.StartWorkflowOptions) {
	i.t.Helper()
	options.TaskQueue = "elsewhere"
	if _, err := i.intruder().ExecuteWorkflow(i.t.Context(), options, "Anything"); err != nil {
		i.t.Fatal(err)
	}
}

// completeSquat completes the workflow of [installation.squat].
func (i *installation) completeSquat() {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(i.t.Context(), 30*time.Second) // the service requires one
	defer cancel()
	service := i.intruder().WorkflowService()
	task, err := service.PollWorkflowTaskQueue(ctx, &workflowservice.PollWorkflowTaskQueueRequest{
		Namespace: i.cfg.Temporal.Namespace, Identity: "intruder",
		TaskQueue: &taskqueue.TaskQueue{Name: "elsewhere", Kind: enums.TASK_QUEUE_KIND_NORMAL},
	})
	if err == nil {
		_, err = service.RespondWorkflowTaskCompleted(ctx, &workflowservice.RespondWorkflowTaskCompletedRequest{
			Namespace: i.cfg.Temporal.Namespace, TaskToken: task.GetTaskToken(), Identity: "intruder",
			Commands: []*command.Command{{
				CommandType: enums.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
				Attributes: &command.Command_CompleteWorkflowExecutionCommandAttributes{
					CompleteWorkflowExecutionCommandAttributes: &command.CompleteWorkflowExecutionCommandAttributes{},
				},
			}},
		})
	}
	if err != nil {
		i.t.Fatal(err)
	}
}

// TestWorkflowID_OfAnotherClientIsTakenBack occupies the ID of a later deactivation's workflow, which
// can be predicted.
func TestWorkflowID_OfAnotherClientIsTakenBack(t *testing.T) {
	for name, complete := range map[string]bool{"a running workflow": false, "a completed workflow": true} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t)
			i := install(t, withConnectors(p.connector()))
			ada := i.createUser("ada@example.com")
			key := i.hold(p, ada, "", "key")
			i.squat(client.StartWorkflowOptions{ID: "leaver/" + i.tenant.ID.String() + "/" + ada + "/2"})
			if complete {
				i.completeSquat()
			}
			i.deactivate(ada)
			if c := i.closed(ada); c.Outcome != "completed" || i.state(key) != "verified" || p.isAlive("key") {
				t.Errorf("the cascade is %s, the key %s and alive: %t", c.Outcome, i.state(key), p.isAlive("key"))
			}
		})
	}
}

// TestWorkflowID_TakenFromRunningCascadeIsTakenBack terminates a cascade and starts another workflow
// under its ID, with a copy of its sealed memo.
func TestWorkflowID_TakenFromRunningCascadeIsTakenBack(t *testing.T) {
	i, p, ada, key, c := stuck(t)
	description, err := i.app.Temporal.DescribeWorkflow(t.Context(), c.WorkflowID, "")
	if err != nil {
		t.Fatal(err)
	}
	memo := make(map[string]any)
	for name, sealed := range description.Memo.GetFields() {
		memo[name] = converter.NewRawValue(sealed)
	}
	if err := i.app.Temporal.TerminateWorkflow(t.Context(), c.WorkflowID, "", "an intruder"); err != nil {
		t.Fatal(err)
	}
	i.squat(client.StartWorkflowOptions{ID: c.WorkflowID, Memo: memo})
	i.completeSquat()
	p.interceptWith(nil)
	i.sql(`update lifecycle_events set started_at = started_at - interval '10 minutes'`)
	if r := i.reconcileTenant(); r.Restarted != 1 || len(r.Problems) != 1 {
		t.Errorf("the reconciler found %+v, want one restart and its reason", r)
	}
	if c := i.closed(ada); c.Outcome != "completed" || p.isAlive("key") {
		t.Errorf("the cascade is %s, the key %s and alive: %t", c.Outcome, i.state(key), p.isAlive("key"))
	}
}

// TestWorkflowID_OfPushIsTakenBack occupies the ID of the workflow that pushes a stream's events.
func TestWorkflowID_OfPushIsTakenBack(t *testing.T) {
	r := newReceiver(t)
	i := install(t, withPrivateReceivers)
	stream := i.stream(r, i.token(i.tenant.ID, auth.ClassReceiver))
	i.squat(client.StartWorkflowOptions{ID: "transmit/" + i.tenant.ID.String() + "/" + stream})
	i.relaysSignals()
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the event", func() bool {
		return slices.Contains(r.events(ada), "account-disabled")
	})
}
