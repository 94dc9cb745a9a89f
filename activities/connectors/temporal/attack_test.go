package temporal_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/client"
	sdk "go.temporal.io/sdk/temporal"

	"github.com/leaverhq/leaver/activities/connectors"
)

// labelled creates a schedule whose search attribute names a principal, unless of is nil.
func (a *agents) labelled(t *testing.T, id string, of uuid.UUID) connectors.Target {
	t.Helper()
	options := client.ScheduleOptions{
		ID: id, Spec: client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: time.Hour}}},
		Action: &client.ScheduleWorkflowAction{ID: id, Workflow: obedient, TaskQueue: queue},
	}
	if of != uuid.Nil {
		options.TypedSearchAttributes = sdk.NewSearchAttributes(
			sdk.NewSearchAttributeKeyKeyword("LeaverPrincipal").ValueSet(of.String()))
	}
	handle, err := a.client.ScheduleClient().Create(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = handle.Delete(context.Background()) })
	return connectors.Target{Kind: connectors.ScheduledRun, Reference: id, Principal: uuid.New()}
}

// TestCancel_LeavesLeaversOwnAndOthersSchedules uses registrations of any name, which a
// platform can make.
func TestCancel_LeavesLeaversOwnAndOthersSchedules(t *testing.T) {
	a := newAgents(t)
	a.config.SearchAttribute = "LeaverPrincipal"
	c := a.connector(t, a.config)
	for name, target := range map[string]connectors.Target{
		"leaver's own":        a.labelled(t, "leaver-reconcile-"+uuid.NewString()[:8], uuid.Nil),
		"another principal's": a.labelled(t, "theirs-"+uuid.NewString(), uuid.New()),
	} {
		for verb, end := range map[string]func(context.Context, connectors.Target) (connectors.Answer, error){
			"cancel": c.Cancel, "block": c.Block,
		} {
			if _, err := end(t.Context(), target); !connectors.IsPermanent(err) {
				t.Errorf("%s, %s: %v, want a permanent refusal", name, verb, err)
			}
		}
		if description, err := a.client.ScheduleClient().GetHandle(
			t.Context(), target.Reference,
		).Describe(t.Context()); err != nil || description.Schedule.State.Paused {
			t.Errorf("%s: the schedule was changed (%v)", name, err)
		}
	}
	if _, err := c.Accepts(connectors.Registration{
		Kind: connectors.ScheduledRun, Reference: "leaver-drill",
	}); err == nil {
		t.Error("leaver's own schedule is accepted")
	}
}

func TestPossesses_ChecksTheSchedulesLabel(t *testing.T) {
	a := newAgents(t)
	a.config.SearchAttribute = "LeaverPrincipal"
	c, ada := a.connector(t, a.config), uuid.New()
	target := a.labelled(t, "hers-"+uuid.NewString(), ada)
	for name, row := range map[string]struct {
		principal, agent uuid.UUID
		want             connectors.Vitality
	}{
		"the principal's own": {ada, uuid.Nil, connectors.Alive},
		"the agent's":         {uuid.New(), ada, connectors.Alive},
		"another principal's": {uuid.New(), uuid.New(), connectors.Dead},
		"without agent":       {uuid.New(), uuid.Nil, connectors.Dead},
	} {
		target.Principal, target.Agent = row.principal, row.agent
		if got, _, err := c.Possesses(t.Context(), target); err != nil || got != row.want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, row.want)
		}
	}
}
