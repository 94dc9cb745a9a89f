package temporal

import (
	"context"
	"fmt"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/leaverhq/leaver/activities/connectors"
)

// poll is the interval at which the status of a cancelled run is polled.
const poll = 200 * time.Millisecond

// Cancel implements connectors.Canceller. It pauses the schedule, so that it starts no new
// runs; ends the open runs; deletes the schedule; and ends open runs again, since a trigger
// or a backfill can start runs of a paused schedule.
func (c *Connector) Cancel(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	schedule := c.client.ScheduleClient().GetHandle(ctx, t.Reference)
	if err := c.refuseOthers(ctx, schedule, t); err != nil {
		return connectors.Answer{}, err
	}
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	gone := false
	if err := schedule.Pause(ctx, client.SchedulePauseOptions{Note: "leaver: its owner has left"}); isGone(err) {
		gone = true
	} else if err != nil {
		return connectors.Answer{}, classify("pause the schedule", err)
	}
	ended, err := c.endRuns(ctx, schedule, t)
	if err != nil {
		return connectors.Answer{}, err
	}
	if !gone && c.config.Mode == "delete" {
		if err := t.CheckFence(ctx); err != nil {
			return connectors.Answer{}, err
		}
		if err := schedule.Delete(ctx); err != nil && !isGone(err) {
			return connectors.Answer{}, classify("delete the schedule", err)
		}
		late, err := c.endRuns(ctx, schedule, t)
		if err != nil {
			return connectors.Answer{}, err
		}
		ended += late
	}
	if gone && ended == 0 {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such schedule, and no open runs of it"}, nil
	}
	return connectors.Answer{
		Outcome: connectors.Done, Detail: fmt.Sprintf("schedule %sd, %d runs ended", c.config.Mode, ended),
	}, nil
}

// endRuns cancels each open run, and terminates those still open after the grace period.
func (c *Connector) endRuns(ctx context.Context, schedule client.ScheduleHandle, t connectors.Target) (int, error) {
	running, err := c.running(ctx, schedule, t.Reference)
	if err != nil {
		return 0, err
	}
	for _, workflowID := range running {
		if err := c.client.CancelWorkflow(ctx, workflowID, ""); err != nil && !isGone(err) {
			return 0, classify("cancel a run", err)
		}
	}
	until := time.Now().Add(c.config.Grace)
	for _, workflowID := range running {
		closed, err := c.waitClosed(ctx, workflowID, until)
		if err != nil {
			return 0, err
		}
		if closed {
			continue
		}
		if err := t.CheckFence(ctx); err != nil {
			return 0, err
		}
		if err := c.client.TerminateWorkflow(ctx, workflowID, "", "leaver: its owner has left"); err != nil &&
			!isGone(err) {
			return 0, classify("terminate a run", err)
		}
	}
	return len(running), nil
}

func (c *Connector) waitClosed(ctx context.Context, workflowID string, until time.Time) (bool, error) {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		description, err := c.client.DescribeWorkflowExecution(ctx, workflowID, "")
		if isGone(err) {
			return true, nil
		}
		if err != nil {
			return false, classify("describe a run", err)
		}
		if description.GetWorkflowExecutionInfo().GetStatus() != enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			return true, nil
		}
		if time.Now().After(until) {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, connectors.Retryable("wait for a run to end: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}

// running returns the IDs of the schedule's open workflows. It returns workflow IDs and no
// run IDs, since a run that continues as new keeps the workflow ID, which is unique to the
// schedule. It queries the schedule, which knows its latest runs, and visibility, which
// lags a little, but also has runs that the schedule no longer lists.
func (c *Connector) running(ctx context.Context, schedule client.ScheduleHandle, id string) ([]string, error) {
	if err := checkSchedule(id); err != nil { // it becomes part of a query
		return nil, err
	}
	seen := make(map[string]bool)
	description, err := schedule.Describe(ctx)
	if err != nil && !isGone(err) {
		return nil, classify("describe the schedule", err)
	}
	var found []string
	add := func(workflowID string) {
		if !seen[workflowID] {
			seen[workflowID] = true
			found = append(found, workflowID)
		}
	}
	if err == nil {
		for _, r := range description.Info.RunningWorkflows {
			add(r.WorkflowID)
		}
	}
	var page []byte
	for {
		answer, err := c.client.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace:     c.config.Namespace,
			Query:         "TemporalScheduledById = '" + id + "' and ExecutionStatus = 'Running'",
			NextPageToken: page,
		})
		if err != nil {
			return nil, classify("list the schedule's runs", err)
		}
		for _, e := range answer.GetExecutions() {
			add(e.GetExecution().GetWorkflowId())
		}
		if page = answer.GetNextPageToken(); len(page) == 0 {
			return found, nil
		}
	}
}
