package temporal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	sdk "go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Can implements connectors.Optional: schedules are listed if their search attribute is configured.
func (c *Connector) Can(capability any) bool {
	if _, discovers := capability.(*connectors.Discoverer); discovers {
		return c.labels()
	}
	return true
}

// labels reports whether the search attribute of schedules is configured.
func (c *Connector) labels() bool { return c.config.SearchAttribute != "" }

// queryIDs is the maximum number of ids in one query.
const queryIDs = 50

// Discover implements connectors.Discoverer. It returns the schedules whose search
// attribute is the id of one of the principals.
func (c *Connector) Discover(ctx context.Context, principals []connectors.Principal) ([]connectors.Found, error) {
	if !c.labels() {
		return nil, nil
	}
	var found []connectors.Found
	for ids := range slices.Chunk(connectors.IDs(principals), queryIDs) {
		page, err := c.scheduled(ctx, ids)
		if err != nil {
			return nil, classify("list schedules", err)
		}
		found = append(found, page...)
	}
	return found, nil
}

func (c *Connector) scheduled(ctx context.Context, principals []uuid.UUID) ([]connectors.Found, error) {
	quoted := make([]string, 0, len(principals))
	for _, id := range principals {
		quoted = append(quoted, "'"+id.String()+"'")
	}
	list, err := c.client.ScheduleClient().List(ctx, client.ScheduleListOptions{
		Query: c.config.SearchAttribute + " in (" + strings.Join(quoted, ", ") + ")",
	})
	if err != nil {
		return nil, err
	}
	var found []connectors.Found
	for list.HasNext() {
		entry, err := list.Next()
		if err != nil {
			return nil, err
		}
		if entry.Paused && c.config.Mode == "pause" {
			continue // a cascade paused it
		}
		var principal uuid.UUID
		label := entry.SearchAttributes.GetIndexedFields()[c.config.SearchAttribute]
		if label == nil || converter.GetDefaultDataConverter().FromPayload(label, &principal) != nil {
			continue // visibility lags: the label has changed since
		}
		found = append(found, connectors.Found{Kind: connectors.ScheduledRun, Reference: entry.ID, Principal: principal})
	}
	return found, nil
}

// blockNote is the note of a schedule that Block has paused.
const blockNote = "leaver: its owner has left; held for approval"

// Block implements connectors.Blocker. It pauses the schedule, which then starts no runs by
// itself.
func (c *Connector) Block(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	schedule := c.client.ScheduleClient().GetHandle(ctx, t.Reference)
	if err := c.refuseOthers(ctx, schedule, t); err != nil {
		return connectors.Answer{}, err
	}
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	description, err := schedule.Describe(ctx)
	if err == nil {
		if state := description.Schedule.State; state != nil && state.Paused && state.Note != blockNote {
			return connectors.Answer{Outcome: connectors.Unchanged, Detail: "the schedule was paused before"}, nil
		}
		err = schedule.Pause(ctx, client.SchedulePauseOptions{Note: blockNote})
	}
	switch {
	case isGone(err):
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such schedule"}, nil
	case err != nil:
		return connectors.Answer{}, classify("pause the schedule", err)
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "the schedule is paused"}, nil
}

// Unblock implements connectors.Unblocker. A cancelled schedule is deleted.
func (c *Connector) Unblock(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	schedule := c.client.ScheduleClient().GetHandle(ctx, t.Reference)
	if err := c.refuseOthers(ctx, schedule, t); err != nil {
		return connectors.Answer{}, err
	}
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	err := schedule.Unpause(ctx, client.ScheduleUnpauseOptions{Note: "leaver: the cascade was cancelled"})
	switch {
	case isGone(err):
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such schedule"}, nil
	case err != nil:
		return connectors.Answer{}, classify("unpause the schedule", err)
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "the schedule is not paused"}, nil
}

// drillEvery is the interval of a drill's schedule, which never fires during the drill.
const drillEvery = 365 * 24 * time.Hour

// Issue implements connectors.Issuer. It creates a schedule that does not fire during the
// drill.
func (c *Connector) Issue(ctx context.Context, name string, _ uuid.UUID) (connectors.Issued, error) {
	_, err := c.client.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID:   name,
		Spec: client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: drillEvery}}},
		Action: &client.ScheduleWorkflowAction{
			ID: name + "-run", Workflow: "leaver-drill", TaskQueue: "leaver-drill",
			WorkflowExecutionTimeout: time.Minute,
		},
	})
	var exists *serviceerror.WorkflowExecutionAlreadyStarted
	if err != nil && !errors.As(err, &exists) && !errors.Is(err, sdk.ErrScheduleAlreadyRunning) {
		return connectors.Issued{}, classify("create a schedule for the drill", err)
	}
	return connectors.Issued{Kind: connectors.ScheduledRun, Reference: name}, nil
}

// Remove implements connectors.Issuer. In mode delete, the cascade has deleted the schedule.
func (c *Connector) Remove(ctx context.Context, name string) error {
	if err := c.client.ScheduleClient().GetHandle(ctx, name).Delete(ctx); err != nil && !isGone(err) {
		return fmt.Errorf("delete the drill's schedule: %w", err)
	}
	return nil
}
