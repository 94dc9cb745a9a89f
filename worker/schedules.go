package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/workflows"
)

// The ids of the Temporal Schedules and of their workflows.
const (
	ReconcileID = "leaver-reconcile"
	DrillID     = "leaver-drill"
)

// Schedule is the result of EnsureSchedules for one schedule.
type Schedule struct {
	ID string
	// Reason says why the schedule does not exist; empty if it does.
	Reason string
}

// EnsureSchedules creates or updates the schedules of the reconciler and, if a connector
// takes part, of the drill. It deletes a schedule that the configuration disables.
func EnsureSchedules(
	ctx context.Context, cfg *config.Config, sealer *seal.Sealer, log *slog.Logger,
) ([]Schedule, error) {
	c, err := NewClient(cfg.Temporal, sealer, log, nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	a := cfg.SelfTest
	reconcile, drill := client.ScheduleSpec{}, client.ScheduleSpec{}
	unreconciled := "self_test.reconcile_every is 0"
	if a.ReconcileEvery > 0 {
		unreconciled = ""
		reconcile.Intervals = []client.ScheduleIntervalSpec{{Every: a.ReconcileEvery}}
	}
	// Without a connector that takes part, each drill would fail.
	undrilled := ""
	drills := a.DrillCron != "" && slices.ContainsFunc(cfg.Connectors, func(c config.Connector) bool {
		return slices.Contains(c.Tenants, a.DrillTenant)
	})
	switch {
	case a.DrillCron == "":
		undrilled = "self_test.drill_cron is empty"
	case !drills:
		undrilled = "no connector names the tenant " + a.DrillTenant + ": add it to the connectors' tenants"
	}
	var done []Schedule
	if drills {
		drill.CronExpressions = []string{a.DrillCron}
	}
	for _, s := range []struct {
		id       string
		spec     client.ScheduleSpec
		never    string // the reason to delete it; empty if it runs
		workflow any
		input    any
	}{
		{ReconcileID, reconcile, unreconciled, workflows.Reconcile, workflows.ReconcileInput{}},
		{DrillID, drill, undrilled, workflows.Drill, workflows.DrillInput{
			Tenant: a.DrillTenant, Timeout: a.DrillTimeout,
		}},
	} {
		action := &client.ScheduleWorkflowAction{
			ID: s.id, Workflow: s.workflow, Args: []any{s.input}, TaskQueue: workflows.TaskQueue,
		}
		if err := ensureSchedule(ctx, c.ScheduleClient(), s.id, s.spec, s.never != "", action); err != nil {
			return done, fmt.Errorf("%s: %w", s.id, err)
		}
		done = append(done, Schedule{s.id, s.never})
	}
	return done, nil
}

// ensureSchedule creates or updates a schedule, or deletes it if never is true. It does not
// change whether the schedule is paused.
func ensureSchedule(
	ctx context.Context, c client.ScheduleClient, id string, spec client.ScheduleSpec, never bool,
	action *client.ScheduleWorkflowAction,
) error {
	handle := c.GetHandle(ctx, id)
	if never {
		if err := handle.Delete(ctx); err != nil && !isNotFound(err) {
			return fmt.Errorf("delete the schedule: %w", err)
		}
		return nil
	}
	_, err := c.Create(ctx, client.ScheduleOptions{
		ID: id, Spec: spec, Action: action, Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP,
		Note: "created by `leaver migrate`",
	})
	if !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return err
	}
	return handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(in client.ScheduleUpdateInput) (
		*client.ScheduleUpdate, error,
	) {
		in.Description.Schedule.Spec, in.Description.Schedule.Action = &spec, action
		return &client.ScheduleUpdate{Schedule: &in.Description.Schedule}, nil
	}})
}
