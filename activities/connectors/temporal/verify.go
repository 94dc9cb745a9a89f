package temporal

import (
	"context"
	"fmt"

	"go.temporal.io/api/enums/v1"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Probe implements connectors.Verifier: alive is a schedule that can fire, or
// anything of it that still runs.
func (c *Connector) Probe(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	schedule := c.client.ScheduleClient().GetHandle(ctx, t.Reference)
	running, err := c.running(ctx, schedule, t.Reference)
	if err != nil {
		return connectors.Unknown, "", err
	}
	open := 0
	for _, workflowID := range running {
		// Visibility lags: only the run itself says whether it is open.
		description, err := c.client.DescribeWorkflowExecution(ctx, workflowID, "")
		if err != nil && !isGone(err) {
			return connectors.Unknown, "", classify("look at a run", err)
		}
		if err == nil && description.GetWorkflowExecutionInfo().GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING {
			open++
		}
	}
	description, err := schedule.Describe(ctx)
	switch {
	case isGone(err):
		if open > 0 {
			return connectors.Alive, fmt.Sprintf("the schedule is gone, but %d of its runs are open", open), nil
		}
		return connectors.Dead, "the schedule is gone, nothing of it runs", nil
	case err != nil:
		return connectors.Unknown, "", classify("look at the schedule", err)
	case open > 0 || !description.Schedule.State.Paused:
		return connectors.Alive, fmt.Sprintf("the schedule exists (paused: %t), %d of its runs are open", description.Schedule.State.Paused, open), nil
	}
	return connectors.Dead, "the schedule is paused, nothing of it runs", nil
}
