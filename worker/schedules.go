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

// The ids of what runs on Temporal Schedules, and of its workflows.
const (
	ReconcileID = "leaver-reconcile"
	DrillID     = "leaver-drill"
)

// Schedule is what was done about a schedule.
type Schedule struct {
	ID string
	// Reason is why there is none; empty where it is scheduled.
	Reason string
}

// EnsureSchedules makes the schedules of the reconciler and, where a connector allows
// it, the drill; has them as the configuration says where they exist; and takes away
// what it says never.
func EnsureSchedules(ctx context.Context, cfg *config.Config, sealer *seal.Sealer, log *slog.Logger) ([]Schedule, error) {
	c, err := NewClient(cfg.Temporal, sealer, log)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	a := cfg.Assurance
	reconcile, drill := client.ScheduleSpec{}, client.ScheduleSpec{}
	unreconciled := "assurance.reconcile_every is 0"
	if a.ReconcileEvery > 0 {
		unreconciled = ""
		reconcile.Intervals = []client.ScheduleIntervalSpec{{Every: a.ReconcileEvery}}
	}
	// Where no connector allows one, a drill would fail every night.
	undrilled := ""
	drills := a.DrillCron != "" && slices.ContainsFunc(cfg.Connectors, func(c config.Connector) bool { return slices.Contains(c.Tenants, a.DrillTenant) })
	switch {
	case a.DrillCron == "":
		undrilled = "assurance.drill_cron is empty"
	case !drills:
		undrilled = "no connector names the tenant " + a.DrillTenant + ", which allows drills there"
	}
	var done []Schedule
	if drills {
		drill.CronExpressions = []string{a.DrillCron}
	}
	for _, s := range []struct {
		id       string
		spec     client.ScheduleSpec
		never    string // why; empty where it runs
		workflow any
		input    any
	}{
		{ReconcileID, reconcile, unreconciled, workflows.Reconcile, workflows.ReconcileInput{}},
		{DrillID, drill, undrilled, workflows.Drill, workflows.DrillInput{Tenant: a.DrillTenant, Patience: a.DrillPatience}},
	} {
		action := &client.ScheduleWorkflowAction{ID: s.id, Workflow: s.workflow, Args: []any{s.input}, TaskQueue: workflows.TaskQueue}
		if err := ensureSchedule(ctx, c.ScheduleClient(), s.id, s.spec, s.never != "", action); err != nil {
			return done, fmt.Errorf("%s: %w", s.id, err)
		}
		done = append(done, Schedule{s.id, s.never})
	}
	return done, nil
}

// ensureSchedule leaves a pause by ops as it is.
func ensureSchedule(ctx context.Context, c client.ScheduleClient, id string, spec client.ScheduleSpec, never bool, action *client.ScheduleWorkflowAction) error {
	handle := c.GetHandle(ctx, id)
	if never {
		if err := handle.Delete(ctx); err != nil && !isNotFound(err) {
			return fmt.Errorf("delete the schedule: %w", err)
		}
		return nil
	}
	_, err := c.Create(ctx, client.ScheduleOptions{
		ID: id, Spec: spec, Action: action, Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP, Note: "made by `leaver migrate`",
	})
	if !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return err
	}
	return handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
		in.Description.Schedule.Spec, in.Description.Schedule.Action = &spec, action
		return &client.ScheduleUpdate{Schedule: &in.Description.Schedule}, nil
	}})
}
