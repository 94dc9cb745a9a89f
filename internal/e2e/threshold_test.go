package e2e

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/workflows"
)

// approver issues an approver's token, which may only release holds and loosen thresholds.
func (i *installation) approver() string {
	i.t.Helper()
	return i.token(uuid.Nil, auth.ClassApprover)
}

// hasState waits until the search attribute LeaverState of the principal's newest cascade is want.
func (i *installation) hasState(principal, want string) {
	i.t.Helper()
	id := i.cascades(principal)[0].WorkflowID
	stacktest.Eventually(i.t, 30*time.Second, "LeaverState "+want, func() bool {
		description, err := i.app.Temporal.DescribeWorkflow(context.Background(), id, "")
		if err != nil {
			return false
		}
		state, _ := description.TypedSearchAttributes.GetKeyword(workflows.SearchState)
		return state == want
	})
}

func TestThreshold_HoldsMassDeactivationUntilApproved(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	d := i.newCRM()
	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"thresholdLeavers":2,"thresholdWindowSeconds":3600}`)
	release := "/v1/tenants/acme/holds/approve"
	if status, _ := i.call("POST", release, i.approver(), `{"reason":"x"}`); status != http.StatusConflict {
		t.Errorf("releasing a hold that is not held answered %d, want 409", status)
	}
	var people, tokens, accounts, roles, passwords []string
	for _, name := range []string{"a", "b", "c"} {
		id := i.createUser(name + "@example.com")
		p.issue("token-" + name)
		token := i.must("POST", "/v1/credentials", i.platform,
			`{"principalId":"`+id+`","kind":"refresh_token","connector":"platform","reference":"token-`+name+`"}`)["id"].(string)
		role, password := d.account()
		account := i.holdAccount(id, role, password, "")
		people, tokens, accounts, roles, passwords = append(people, id), append(tokens, token),
			append(accounts, account), append(roles, role), append(passwords, password)
	}
	for _, id := range people {
		i.deactivate(id)
	}
	i.work()
	for n, id := range people {
		i.hasState(id, "held")
		// A held cascade still revokes the token and blocks the account's login.
		stacktest.Eventually(t, 20*time.Second, "the token's end and the account's block", func() bool {
			return i.state(tokens[n]) == "verified" && !d.logsIn(roles[n], passwords[n])
		})
		if got := i.state(accounts[n]); got != "ending" {
			t.Errorf("the account is %s while the hold is held, want ending", got)
		}
		// The block is reversible.
		d.exec("alter role " + roles[n] + " login")
		if !d.logsIn(roles[n], passwords[n]) {
			t.Error("the account cannot log in with its password after it is unblocked")
		}
	}
	holds := i.must("GET", "/v1/tenants/acme/holds", i.operator, "")["items"].([]any)
	if len(holds) != 1 || holds[0].(map[string]any)["heldCascades"] != 3.0 {
		t.Errorf("holds %v; want one that holds 3 cascades", holds)
	}
	if status, _ := i.call("POST", release, i.operator, `{"reason":"x"}`); status != http.StatusUnauthorized {
		t.Errorf("a release by an operator answered %d, want 401", status)
	}
	if status, _ := i.call("GET", "/v1/tenants/acme/holds", i.approver(), ""); status != http.StatusUnauthorized {
		t.Errorf("an approver's token opened an operator's route: %d", status)
	}
	if got := i.must("POST", release, i.approver(), `{"reason":"layoffs, HR-12"}`)["signalled"]; got != 3.0 {
		t.Errorf("%v cascades were notified, want 3", got)
	}
	for n, id := range people {
		if c := i.closed(id); c.Outcome != "completed" || i.state(accounts[n]) != "verified" {
			t.Errorf("cascade %+v, account %s; want completed and verified", c, i.state(accounts[n]))
		}
	}
	// Released leavers do not count again.
	late := i.createUser("late@example.com")
	i.deactivate(late)
	if c := i.closed(late); c.Outcome != "completed" {
		t.Errorf("a later leaver's cascade %+v; want completed", c)
	}
}

// TestThreshold_CancelledCascadeUnblocksItsAccounts deactivates people by mistake: their accounts are blocked, they are
// reactivated, and their cascades are cancelled.
func TestThreshold_CancelledCascadeUnblocksItsAccounts(t *testing.T) {
	long(t)
	i := installAPI(t)
	d := i.newCRM()
	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"thresholdLeavers":1,"thresholdWindowSeconds":3600}`)
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	role, password := d.account()
	other, secret := d.account()
	common, known := d.account()
	disabled, kept := d.account()
	hers, his := i.holdAccount(ada, role, password, ""), i.holdAccount(bob, other, secret, "")
	i.holdAccount(ada, common, known, "")
	i.holdAccount(bob, common, known, "")
	i.holdAccount(ada, disabled, kept, "")
	d.exec("alter role " + disabled + " nologin") // before leaver blocks it
	i.deactivate(ada)
	i.deactivate(bob)
	i.work()
	stacktest.Eventually(t, 20*time.Second, "the blocks", func() bool {
		return !d.logsIn(role, password) && !d.logsIn(other, secret) && !d.logsIn(common, known)
	})
	cancel := func(person string) {
		i.must("POST", "/v1/tenants/acme/cascades/"+i.cascades(person)[0].ID.String()+"/cancel", i.operator, `{"reason":"the wrong list"}`)
	}
	i.must("POST", "/v1/tenants/acme/principals/"+ada+"/restore", i.operator, `{"reason":"the wrong list"}`)
	cancel(ada)
	cancel(bob) // who stays deactivated
	stacktest.Eventually(t, 20*time.Second, "the login of who is back", func() bool { return d.logsIn(role, password) })
	if state := i.state(hers); state != "live" {
		t.Errorf("the account is %s, want live", state)
	}
	if d.logsIn(common, known) {
		t.Error("an account logs in although a holder who has left knows its password")
	}
	if d.logsIn(disabled, kept) {
		t.Error("an account that was disabled before leaver blocked it was enabled")
	}
	if d.logsIn(other, secret) || i.state(his) != "failed" {
		t.Errorf("the account of who is not back is %s, and logs in: %t", i.state(his), d.logsIn(other, secret))
	}
	i.deactivate(ada) // ends it for good
	i.must("POST", "/v1/tenants/acme/holds/approve", i.approver(), `{"reason":"HR-12"}`)
	if c := i.closed(ada); c.Outcome != "completed" || d.logsIn(role, password) {
		t.Errorf("the next cascade is %s, and the account logs in: %t", c.Outcome, d.logsIn(role, password))
	}
}

// TestReconcile_UnblocksItemsOfCancelledCascade deactivates a person by mistake, and restores her agent only after
// her cascade was cancelled, which leaves the agent's account blocked.
func TestReconcile_UnblocksItemsOfCancelledCascade(t *testing.T) {
	long(t)
	i := installAPI(t)
	d := i.newCRM()
	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"thresholdLeavers":1,"thresholdWindowSeconds":3600}`)
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	agent := i.createAgent("crm-agent", ada)
	role, password := d.account()
	other, secret := d.account()
	i.holdAccount(agent, role, password, "")
	i.holdAccount(bob, other, secret, "")
	i.deactivate(bob)
	i.deactivate(ada)
	i.work()
	stacktest.Eventually(t, 20*time.Second, "the blocks", func() bool {
		return !d.logsIn(role, password) && !d.logsIn(other, secret)
	})
	restore := func(principal string) {
		i.must("POST", "/v1/tenants/acme/principals/"+principal+"/restore", i.operator, `{"reason":"the wrong list"}`)
	}
	restore(ada)
	for _, person := range []string{ada, bob} { // bob stays deactivated
		i.must("POST", "/v1/tenants/acme/cascades/"+i.cascades(person)[0].ID.String()+"/cancel", i.operator, `{"reason":"the wrong list"}`)
	}
	i.hasState(ada, "cancelled")
	i.sql(`update lifecycle_events set closed_at = closed_at - interval '1 hour' where outcome = 'cancelled'`)
	if found := i.reconcile(); found.Unblocked != 0 || d.logsIn(role, password) {
		t.Errorf("unblocked %d although the agent is suspended", found.Unblocked)
	}
	restore(agent)
	if found := i.reconcile(); found.Unblocked != 1 || !d.logsIn(role, password) {
		t.Errorf("unblocked %d, and the agent's account logs in: %t; want it unblocked", found.Unblocked, d.logsIn(role, password))
	}
	if d.logsIn(other, secret) {
		t.Error("the account of the deactivated user logs in")
	}
	if found := i.reconcile(); found.Unblocked != 0 {
		t.Errorf("unblocked %d again", found.Unblocked)
	}
}

func TestThreshold_ShareIsOfActiveUsers(t *testing.T) {
	i := installAPI(t)
	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"thresholdShare":0.5}`)
	var people []string
	for _, name := range strings.Split("abcdefghijkl", "") {
		people = append(people, i.createUser(name+"@example.com"))
	}
	held := func(id string) bool {
		held, err := i.app.Activities().Threshold.Check(t.Context(), i.tenant.ID, i.cascades(id)[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	var got []bool
	for _, id := range people[:8] {
		i.deactivate(id)
		got = append(got, held(id))
	}
	if want := []bool{false, false, false, false, false, false, true, true}; !cmp.Equal(got, want) {
		t.Errorf("held after each of 8 deactivations of 12 users: %v, want %v", got, want)
	}
}

func TestPause_HoldsWorkOfOneConnectorOnly(t *testing.T) {
	long(t)
	p := newPlatform(t)
	other := strings.Replace(p.connector(), "connectors:\n", "", 1)
	i := install(t, withConnectors(p.connector()+strings.Replace(other, "name: platform", "name: other", 1)))
	ada := i.createUser("ada@example.com")
	waits := i.hold(p, ada, "", "waits")
	p.issue("goes-on")
	goesOn := i.must("POST", "/v1/credentials", i.platform,
		`{"principalId":"`+ada+`","kind":"api_key","connector":"other","reference":"goes-on"}`)["id"].(string)
	pause := "/v1/connectors/platform/pause"
	for body, want := range map[string]int{
		`{}`: http.StatusUnprocessableEntity, `{"reason":"maintenance"}`: http.StatusNoContent,
	} {
		if status, _ := i.raw("POST", pause, i.operator, body); status != want {
			t.Fatalf("pause with %s answered %d, want %d", body, status, want)
		}
	}
	if status, _ := i.call("POST", pause, i.operator, `{"reason":"again"}`); status != http.StatusConflict {
		t.Errorf("pausing twice answered %d, want 409", status)
	}
	if status, _ := i.call("POST", "/v1/connectors/nobody/pause", i.operator,
		`{"reason":"x"}`); status != http.StatusNotFound {
		t.Errorf("pausing an unknown connector answered %d, want 404", status)
	}
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the other connector's end", func() bool {
		return i.state(goesOn) == "verified"
	})
	if got := i.state(waits); got != "ending" || p.called("credential.revoke", "waits") != 0 {
		t.Errorf("the paused connector's item is %s and was revoked %d times", got, p.called("credential.revoke", "waits"))
	}
	if status, _ := i.raw("POST", "/v1/connectors/platform/resume", i.operator,
		`{"reason":"done"}`); status != http.StatusNoContent {
		t.Fatalf("resume answered %d", status)
	}
	if c := i.closed(ada); c.Outcome != "completed" || i.state(waits) != "verified" {
		t.Errorf("cascade %+v, item %s; want completed and verified", c, i.state(waits))
	}
	if status, _ := i.call("POST", "/v1/connectors/platform/resume", i.operator,
		`{"reason":"x"}`); status != http.StatusConflict {
		t.Errorf("resuming what is not paused answered %d, want 409", status)
	}
}

func TestThreshold_HoldsRerunOfTerminatedCascade(t *testing.T) {
	long(t)
	i := installAPI(t)
	d := i.newCRM()
	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"thresholdLeavers":1,"thresholdWindowSeconds":60}`)
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	role, password := d.account()
	id := i.holdAccount(ada, role, password, "")
	i.deactivate(bob)
	i.deactivate(ada)
	i.work()
	i.hasState(ada, "held")
	cascade := i.cascades(ada)[0]
	// Before the re-run, the window has passed and the threshold is disabled.
	i.sql(`update lifecycle_events set created_at = created_at - interval '1 hour'`)
	i.must("PATCH", "/v1/tenants/acme", i.token(uuid.Nil, auth.ClassApprover), `{"thresholdLeavers":0}`)
	if err := i.app.Temporal.TerminateWorkflow(t.Context(), cascade.WorkflowID, "", "impatience"); err != nil {
		t.Fatal(err)
	}
	i.must("POST", "/v1/tenants/acme/cascades/"+cascade.ID.String()+"/rerun", i.operator, `{"reason":"impatience"}`)
	i.hasState(ada, "held")
	// A signal from Temporal's UI does not release it either.
	if err := i.app.Temporal.SignalWorkflow(t.Context(), cascade.WorkflowID, "",
		workflows.SignalApprove, nil); err != nil {
		t.Fatal(err)
	}
	stacktest.Eventually(t, 20*time.Second, "the block", func() bool { return !d.logsIn(role, password) })
	if got := i.state(id); got != "ending" {
		t.Errorf("the account is %s, want ending", got)
	}
	i.must("POST", "/v1/tenants/acme/holds/approve", i.approver(), `{"reason":"it is meant"}`)
	if c := i.closed(ada); c.Outcome != "completed" || i.state(id) != "verified" {
		t.Errorf("cascade %+v, account %s; want completed and verified", c, i.state(id))
	}
}
