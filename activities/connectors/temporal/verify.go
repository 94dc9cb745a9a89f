package temporal

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Possesses implements connectors.Possession. It checks that the schedule's search attribute
// names the principal or the agent.
func (c *Connector) Possesses(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	if !c.labels() {
		return connectors.Unknown, "search_attribute is not configured, so the schedule's principal is unknown", nil
	}
	if err := checkSchedule(t.Reference); err != nil {
		return connectors.Unknown, "", err
	}
	description, err := c.client.ScheduleClient().GetHandle(ctx, t.Reference).Describe(ctx)
	if isGone(err) {
		return connectors.Dead, "no such schedule", nil
	}
	if err != nil {
		return connectors.Unknown, "", classify("describe the schedule", err)
	}
	if of, ok := c.labelOf(description); !ok || (of != t.Principal && of != t.Agent) {
		detail := "the schedule's " + c.config.SearchAttribute + " names neither the principal nor the agent"
		return connectors.Dead, detail, nil
	}
	return connectors.Alive, "the schedule names the principal or the agent", nil
}

// labelOf returns the principal that a schedule's search attribute names.
func (c *Connector) labelOf(description *client.ScheduleDescription) (of uuid.UUID, ok bool) {
	label := description.SearchAttributes.GetIndexedFields()[c.config.SearchAttribute]
	return of, label != nil && converter.GetDefaultDataConverter().FromPayload(label, &of) == nil
}

// refuseOthers returns a permanent error for a schedule whose label names another principal.
// An administrator sets the label, so it takes precedence over a registration.
func (c *Connector) refuseOthers(ctx context.Context, schedule client.ScheduleHandle, t connectors.Target) error {
	if err := checkSchedule(t.Reference); err != nil || !c.labels() || t.Principal == uuid.Nil {
		return err
	}
	description, err := schedule.Describe(ctx)
	if isGone(err) {
		return nil
	}
	if err != nil {
		return classify("describe the schedule", err)
	}
	if of, ok := c.labelOf(description); ok && of != t.Principal && of != t.Agent {
		return connectors.Permanent("the schedule's %s names another principal: correct the label or the registration",
			c.config.SearchAttribute)
	}
	return nil
}

// Probe implements connectors.Verifier. A schedule is alive if it can fire or has an open run.
func (c *Connector) Probe(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	schedule := c.client.ScheduleClient().GetHandle(ctx, t.Reference)
	running, err := c.running(ctx, schedule, t.Reference)
	if err != nil {
		return connectors.Unknown, "", err
	}
	open := 0
	for _, workflowID := range running {
		// Visibility lags, so check the run itself.
		description, err := c.client.DescribeWorkflowExecution(ctx, workflowID, "")
		if err != nil && !isGone(err) {
			return connectors.Unknown, "", classify("describe a run", err)
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
		return connectors.Dead, "the schedule is gone, no run is open", nil
	case err != nil:
		return connectors.Unknown, "", classify("describe the schedule", err)
	case open > 0 || !description.Schedule.State.Paused:
		return connectors.Alive, fmt.Sprintf(
			"the schedule exists (paused: %t), %d of its runs are open", description.Schedule.State.Paused, open,
		), nil
	}
	return connectors.Dead, "the schedule is paused, no run is open", nil
}
