package e2e

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// loseWorkflow deletes a cascade's workflow in Temporal, as a restored backup could.
func (i *installation) loseWorkflow(event cascade.Cascade) {
	i.t.Helper()
	service := i.app.Temporal.WorkflowService()
	_, err := service.DeleteWorkflowExecution(i.t.Context(), &workflowservice.DeleteWorkflowExecutionRequest{
		Namespace: i.cfg.Temporal.Namespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: event.WorkflowID},
	})
	if err != nil {
		i.t.Fatal(err)
	}
	stacktest.Eventually(i.t, 30*time.Second, "the workflow's deletion", func() bool {
		status, err := i.app.Starter().Status(i.t.Context(), event.WorkflowID, "")
		return err == nil && status == cascade.WorkflowGone
	})
}

// stuck returns an installation with a running cascade of Ada's: the platform refuses to revoke
// her key with a retryable error.
func stuck(t *testing.T) (i *installation, p *platform, ada, key string, event cascade.Cascade) {
	t.Helper()
	p = newPlatform(t)
	i = install(t, withConnectors(p.connector()))
	ada = i.createUser("ada@example.com")
	key = i.hold(p, ada, "", "key")
	p.refuseRevocation("key", http.StatusServiceUnavailable)
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the first attempt", func() bool {
		return p.called("credential.revoke", "key") > 0
	})
	return i, p, ada, key, i.cascades(ada)[0]
}

// verbs returns the acts on a cascade in the audit log, as "VERB by CLASS OF THE ACTOR".
func (i *installation) verbs(event cascade.Cascade) []string {
	i.t.Helper()
	var verbs []string
	acts := i.must("GET", "/v1/tenants/acme/cascades/"+event.ID.String()+"/acts", i.operator, "")["items"].([]any)
	for _, a := range acts {
		act := a.(map[string]any)
		class, _, _ := strings.Cut(act["actor"].(string), "/")
		verbs = append(verbs, act["verb"].(string)+" by "+class)
	}
	return verbs
}

func (i *installation) wantCancelled(p *platform, ada, key string, event cascade.Cascade, state, by string) {
	i.t.Helper()
	if c := i.closed(ada); c.Outcome != "cancelled" {
		i.t.Errorf("cascade %+v, want cancelled", c)
	}
	if got := i.state(key); got != state || !p.isAlive("key") {
		i.t.Errorf("the key is %s, want %s and alive", got, state)
	}
	verbs := i.verbs(event)
	if len(verbs) == 0 || verbs[len(verbs)-1] != "cancel by "+by {
		i.t.Errorf("the audit log has %v, want a cancel by %s last", verbs, by)
	}
}

func TestCascade_CancelledLeavesWhatItHasNotEnded(t *testing.T) {
	i, p, ada, key, event := stuck(t)
	path := "/v1/tenants/acme/cascades/" + event.ID.String()
	if status, _ := i.call("POST", path+"/cancel", i.operator, `{}`); status != http.StatusUnprocessableEntity {
		t.Errorf("without a reason it answered %d, want 422", status)
	}
	i.must("POST", path+"/cancel", i.operator, `{"reason":"the wrong person"}`)
	i.wantCancelled(p, ada, key, event, "failed", "operator-token")
	if status, _ := i.call("POST", path+"/cancel", i.operator, `{"reason":"again"}`); status != http.StatusConflict {
		t.Errorf("cancelled again it answered %d, want 409", status)
	}
	stacktest.Eventually(t, 20*time.Second, "the workflow's end", func() bool {
		status, err := i.app.Starter().Status(t.Context(), event.WorkflowID, "")
		return err == nil && status == cascade.WorkflowStopped
	})
	// Ada is still restricted. The reconciler does not end a cancelled cascade's survivor.
	p.interceptWith(nil)
	if found := i.reconcile(); found.Ended != 0 || found.Restarted != 0 || i.state(key) != "failed" {
		t.Errorf("found %+v, and the key is %s; want nothing done", found, i.state(key))
	}
	i.must("POST", path+"/rerun", i.operator, `{"reason":"it was the right person"}`)
	if c := i.closed(ada); c.Outcome != "completed" || i.state(key) != "verified" {
		t.Errorf("after the re-run: %+v, item %s; want completed and verified", c, i.state(key))
	}
}

func TestPrincipal_RestoredWithCancelKeepsWhatWasNotEnded(t *testing.T) {
	i, p, ada, key, event := stuck(t)
	restored := i.must("POST", "/v1/tenants/acme/principals/"+ada+"/restore?cancel=true", i.operator,
		`{"reason":"the wrong person"}`)
	if ids := restored["cancelledCascades"].([]any); len(ids) != 1 || ids[0] != event.ID.String() {
		t.Errorf("cancelled %v, want %s", ids, event.ID)
	}
	i.wantCancelled(p, ada, key, event, "live", "operator-token")
	acts := i.must("GET", "/v1/tenants/acme/cascades/"+event.ID.String()+"/acts", i.operator, "")["items"].([]any)
	if why := acts[len(acts)-1].(map[string]any)["reason"]; why != "the principal was restored: the wrong person" {
		t.Errorf("the cancellation's reason is %v, want the operator's in it", why)
	}
	p.interceptWith(nil)
	if found := i.reconcile(); found.Ended != 0 || found.Restarted != 0 || i.state(key) != "live" || !p.isAlive("key") {
		t.Errorf("found %+v, and the key is %s; want nothing done", found, i.state(key))
	}
}

func TestCascade_CancelledInTemporalIsTheSame(t *testing.T) {
	i, p, ada, key, event := stuck(t)
	if err := i.app.Temporal.CancelWorkflow(t.Context(), event.WorkflowID, ""); err != nil {
		t.Fatal(err)
	}
	i.wantCancelled(p, ada, key, event, "failed", "temporal")
	// After the reactivation the key is live again.
	i.must("PATCH", "/scim/v2/Users/"+ada, i.scim, patchActive("true"))
	i.reconcile()
	if i.state(key) != "live" || !p.isAlive("key") {
		t.Errorf("after the reactivation the key is %s, want live", i.state(key))
	}
}

// TestCascade_TerminatedInTemporalIsTheSame checks that terminating the workflow of a principal
// that is active again cancels the cascade.
func TestCascade_TerminatedInTemporalIsTheSame(t *testing.T) {
	i, p, ada, key, event := stuck(t)
	i.must("PATCH", "/scim/v2/Users/"+ada, i.scim, patchActive("true"))
	if err := i.app.Temporal.TerminateWorkflow(t.Context(), event.WorkflowID, "", "a mistake"); err != nil {
		t.Fatal(err)
	}
	p.interceptWith(nil)
	i.sql(`update lifecycle_events set started_at = now() - interval '1 hour' where id = $1`, event.ID)
	if found := i.reconcile(); found.Restarted != 0 {
		t.Errorf("found %+v; want no cascade restarted", found)
	}
	i.wantCancelled(p, ada, key, event, "live", "temporal")
}

// TestCascade_CancelledBeforeItBeganEndsNothing checks that neither the reconciler nor a concurrent
// start continues a cascade that was cancelled before it began.
func TestCascade_CancelledBeforeItBeganEndsNothing(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector())) // without a worker
	ada := i.createUser("ada@example.com")
	key := i.hold(p, ada, "", "key")
	agent := i.createAgent("agent", ada)
	agents := i.hold(p, agent, "", "agents")
	i.deactivate(ada)
	event := i.cascades(ada)[0]
	if _, _, err := i.app.Activities().Lifecycle.SettleAgents(t.Context(), i.tenant.ID,
		uuid.MustParse(ada), event.ID); err != nil {
		t.Fatal(err) // Settle suspends the agent
	}
	path := "/v1/tenants/acme/cascades/" + event.ID.String() + "/cancel"
	cancelled := i.must("POST", path, i.operator, `{"reason":"the wrong person"}`)
	if cancelled["principalName"] != "ada@example.com" {
		t.Errorf("the answer names %v, want the principal's name", cancelled["principalName"])
	}
	if found := i.reconcileTenant(); found.Ended != 0 || i.state(key) != "failed" || i.state(agents) != "failed" {
		t.Errorf("found %+v, and the keys are %s and %s; want nothing done, and survivors",
			found, i.state(key), i.state(agents))
	}
	err := i.app.Cascades().Running(t.Context(), i.tenant.ID, event.ID, lifecycle.Leaver, "late")
	if !errors.Is(err, cascade.ErrCancelled) {
		t.Errorf("a late start: %v; want %v", err, cascade.ErrCancelled)
	}
	if c := i.cascades(ada)[0]; c.Outcome != "cancelled" {
		t.Errorf("the cascade is %s, want cancelled", c.Outcome)
	}
}

// TestCascade_CancelledWhileItStartsStaysCancelled checks that a start waits for the transaction of
// a concurrent cancellation and returns ErrCancelled.
func TestCascade_CancelledWhileItStartsStaysCancelled(t *testing.T) {
	i := installAPI(t)
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	event := i.cascades(ada)[0]
	tx, err := i.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if _, err := tx.Exec(t.Context(),
		`update lifecycle_events set closed_at = now(), outcome = 'cancelled' where id = $1`, event.ID); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() {
		started <- i.app.Cascades().Running(context.Background(), i.tenant.ID, event.ID, lifecycle.Leaver, "late")
	}()
	i.awaitLock()
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-started; !errors.Is(err, cascade.ErrCancelled) {
		t.Errorf("the late start: %v; want %v", err, cascade.ErrCancelled)
	}
	if c := i.cascades(ada)[0]; c.Outcome != "cancelled" {
		t.Errorf("the cascade is %s, want cancelled", c.Outcome)
	}
}

// TestReactivation_AndGroupChangeDoNotDeadlock rewrites a group's members while a member is
// reactivated.
func TestReactivation_AndGroupChangeDoNotDeadlock(t *testing.T) {
	i := installAPI(t)
	ada := i.createUser("ada@example.com")
	group := i.createGroup("engineering", ada)
	i.deactivate(ada)
	change, err := i.connect().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = change.Rollback(context.Background()) }()
	if _, err := change.Exec(t.Context(),
		`create temp table was on commit drop as select * from edges where source_id = $1`, group); err != nil {
		t.Fatal(err)
	}
	if _, err := change.Exec(t.Context(), `delete from edges where source_id = $1`, group); err != nil {
		t.Fatal(err)
	}
	returned := make(chan error, 1)
	returns := i.connect()
	go func() {
		_, err := returns.Exec(context.Background(), `delete from restrictions where principal_id = $1`, ada)
		returned <- err
	}()
	i.awaitLock()
	if _, err := change.Exec(t.Context(), `insert into edges select * from was`); err != nil {
		t.Errorf("the change of the group: %v", err)
	}
	if err := change.Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-returned; err != nil {
		t.Errorf("the reactivation: %v", err)
	}
}

// awaitLock waits until a session of the database waits for a lock.
func (i *installation) awaitLock() {
	i.t.Helper()
	conn := i.connect()
	stacktest.Eventually(i.t, 10*time.Second, "a session that waits for a lock", func() bool {
		var waits bool
		err := conn.QueryRow(i.t.Context(), `
			select exists (select 1 from pg_stat_activity
			                where datname = current_database() and wait_event_type = 'Lock')`).Scan(&waits)
		return err == nil && waits
	})
}

// TestReconciler_CancelsLostCascadeOfActivePrincipal checks that a cascade without a workflow
// is cancelled, not restarted, once its principal is active again.
func TestReconciler_CancelsLostCascadeOfActivePrincipal(t *testing.T) {
	i, p, ada, key, event := stuck(t)
	i.must("PATCH", "/scim/v2/Users/"+ada, i.scim, patchActive("true"))
	i.loseWorkflow(event)
	p.interceptWith(nil)
	i.sql(`update lifecycle_events set started_at = now() - interval '1 hour' where id = $1`, event.ID)
	if found := i.reconcile(); found.Restarted != 0 || found.Ended != 0 {
		t.Errorf("found %+v; want nothing done", found)
	}
	i.wantCancelled(p, ada, key, event, "live", "reconciler")
}
