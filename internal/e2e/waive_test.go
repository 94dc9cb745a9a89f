package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/client"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/workflows"
)

// refuseRevocation makes the platform answer revocations of one reference with the status.
func (p *platform) refuseRevocation(reference string, status int) {
	p.interceptWith(func(w http.ResponseWriter, kind, of string) bool {
		if kind == "credential.revoke" && of == reference {
			w.WriteHeader(status)
			return true
		}
		return false
	})
}

func TestWaive_SurvivorOfRunningCascade(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	good, waived := i.hold(p, ada, "", "good"), i.hold(p, ada, "", "stubborn")
	p.refuseRevocation("stubborn", http.StatusServiceUnavailable)
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the first attempt", func() bool {
		return p.called("credential.revoke", "stubborn") > 0 && i.state(good) == "verified"
	})
	cascade := i.cascades(ada)[0]
	path := "/v1/tenants/acme/cascades/" + cascade.ID.String()
	until := time.Now().Add(72 * time.Hour).UTC().Format(time.RFC3339)
	for body, want := range map[string]int{
		`{"itemId":"` + waived + `","until":"` + until + `"}`:                           http.StatusUnprocessableEntity,
		`{"itemId":"` + waived + `","reason":"x"}`:                                      http.StatusUnprocessableEntity,
		`{"itemId":"` + waived + `","reason":"x","until":"2020-01-01T00:00:00Z"}`:       http.StatusUnprocessableEntity,
		`{"itemId":"` + good + `","reason":"x","until":"` + until + `"}`:                http.StatusConflict,
		`{"itemId":"` + cascade.ID.String() + `","reason":"x","until":"` + until + `"}`: http.StatusNotFound,
	} {
		if status, answer := i.call("POST", path+"/waive", i.operator, body); status != want {
			t.Errorf("waiving with %s answered %d %v, want %d", body, status, answer, want)
		}
	}
	item := i.must("POST", path+"/waive", i.operator,
		`{"itemId":"`+waived+`","reason":"the export must finish","until":"`+until+`"}`)
	if item["state"] != "waived" || item["waivedUntil"] != until {
		t.Errorf("the waived item is %v", item)
	}
	if c := i.closed(ada); c.Outcome != "completed" || c.Waived != 1 || c.Survivors != 0 || c.Verified != 1 {
		t.Errorf("cascade %+v; want completed with 1 waived", c)
	}
	acts := i.must("GET", path+"/acts", i.operator, "")["items"].([]any)
	if len(acts) != 1 || acts[0].(map[string]any)["verb"] != "waive" ||
		acts[0].(map[string]any)["reason"] != "the export must finish" ||
		!strings.HasPrefix(acts[0].(map[string]any)["actor"].(string), "operator-token/") {
		t.Errorf("acts %v; want the waiver with its actor and reason", acts)
	}
}

func TestWaive_SurvivorOfClosedCascade(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "stubborn")
	p.refuseRevocation("stubborn", http.StatusForbidden)
	i.deactivate(ada)
	path := "/v1/tenants/acme/cascades/" + i.closed(ada).ID.String()
	i.must("POST", path+"/waive", i.operator,
		`{"itemId":"`+id+`","reason":"x","until":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`)
	if got := i.state(id); got != "waived" {
		t.Errorf("the item is %s, want waived", got)
	}
	// A re-run does not revoke a waived credential.
	before := p.called("credential.revoke", "stubborn")
	i.must("POST", path+"/rerun", i.operator, `{"reason":"see"}`)
	if c := i.closed(ada); c.Outcome != "completed" || c.Waived != 1 ||
		p.called("credential.revoke", "stubborn") != before {
		t.Errorf("after the re-run: %+v; want completed, without another revocation of the waived item", c)
	}
}

func TestCascade_WaitingShowsLastAnswer(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()), func(c *config.Config) {
		c.Policy.ProgressInterval, c.Policy.MaximumInterval = 500*time.Millisecond, 2*time.Second
	})
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, "", "down")
	p.refuseRevocation("down", http.StatusServiceUnavailable)
	i.deactivate(ada)
	i.hasState(ada, "waiting")
	stacktest.Eventually(t, 20*time.Second, "the last answer in the details", func() bool {
		answer, err := i.app.Temporal.QueryWorkflow(t.Context(), i.cascades(ada)[0].WorkflowID,
			"", "__temporal_workflow_metadata")
		var metadata sdkpb.WorkflowMetadata
		if err != nil || answer.Get(&metadata) != nil {
			return false
		}
		return strings.Contains(metadata.GetCurrentDetails(), "| platform |") &&
			strings.Contains(metadata.GetCurrentDetails(), "503")
	})
	p.interceptWith(nil)
	if c := i.closed(ada); c.Outcome != "completed" {
		t.Errorf("cascade %+v, want completed", c)
	}
	i.hasState(ada, "completed")
}

func TestRerun_FromTemporalUI(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "stubborn")
	p.refuseRevocation("stubborn", http.StatusForbidden)
	i.deactivate(ada)
	failed := i.closed(ada)
	p.interceptWith(nil)
	// The cascade is closed shortly before its workflow ends.
	if err := i.app.Temporal.GetWorkflow(t.Context(), failed.WorkflowID, *failed.RunID).Get(t.Context(), nil); err == nil {
		t.Error("the first run completed")
	}
	// The UI's form starts a workflow with the same ID, type, task queue and input.
	var in workflows.Input
	events := i.app.Temporal.GetWorkflowHistory(t.Context(), failed.WorkflowID, *failed.RunID, false, 0)
	first, err := events.Next()
	if err != nil {
		t.Fatal(err)
	}
	i.decode(first.GetWorkflowExecutionStartedEventAttributes().GetInput(), &in)
	options := client.StartWorkflowOptions{ID: failed.WorkflowID, TaskQueue: workflows.TaskQueue}
	run, err := i.app.Temporal.ExecuteWorkflow(t.Context(), options, "Leaver", in)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Get(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if c := i.closed(ada); c.Outcome != "completed" || *c.RunID != run.GetRunID() || i.state(id) != "verified" {
		t.Errorf("cascade %+v, item %s; want completed by the run from the UI, and verified", c, i.state(id))
	}
	acts, err := i.app.Cascades().Acts(t.Context(), i.tenant.ID, failed.ID, 0, 500)
	if err != nil || len(acts) != 1 || acts[0].Actor != "temporal" || acts[0].Verb != "rerun" {
		t.Errorf("acts %+v, %v; want the re-run in the audit log", acts, err)
	}
}

func TestCascades_ListFiltersByOutcomeConnectorAndTime(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	i.hold(p, ada, "", "stubborn")
	i.hold(p, bob, "", "good")
	p.refuseRevocation("stubborn", http.StatusForbidden)
	i.deactivate(ada)
	i.deactivate(bob)
	failed := i.closed(ada).ID.String()
	i.closed(bob)
	got := map[string]int{}
	for _, query := range []string{
		"outcome=failed", "outcome=failed&connector=platform", "outcome=failed&connector=other",
		"outcome=failed&since=2100-01-01T00:00:00Z", "outcome=failed&since=2020-01-01T00:00:00Z",
	} {
		items := i.must("GET", "/v1/tenants/acme/cascades?"+query, i.operator, "")["items"].([]any)
		got[query] = len(items)
		if len(items) > 0 && items[0].(map[string]any)["id"] != failed {
			t.Errorf("%s found %v", query, items)
		}
	}
	if want := map[string]int{
		"outcome=failed": 1, "outcome=failed&connector=platform": 1, "outcome=failed&connector=other": 0,
		"outcome=failed&since=2100-01-01T00:00:00Z": 0, "outcome=failed&since=2020-01-01T00:00:00Z": 1,
	}; !cmp.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	for _, mistyped := range []string{"cascades?since=yesterday", "cascades?outcome=fail", "credentials?state=dead"} {
		if status, _ := i.call("GET", "/v1/tenants/acme/"+mistyped, i.operator, ""); status != http.StatusBadRequest {
			t.Errorf("%s answered %d, want 400", mistyped, status)
		}
	}
}

// TestWaive_LaterRefusalLeavesItWaived waives a credential while an attempt is in flight that fails
// afterwards.
func TestWaive_LaterRefusalLeavesItWaived(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "slow")
	open := make(chan struct{})
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
		if kind == "credential.revoke" {
			<-open
			w.WriteHeader(http.StatusForbidden)
		}
		return kind == "credential.revoke"
	})
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the attempt", func() bool {
		return p.called("credential.revoke", "slow") > 0
	})
	i.must("POST", "/v1/tenants/acme/cascades/"+i.cascades(ada)[0].ID.String()+"/waive", i.operator,
		`{"itemId":"`+id+`","reason":"x","until":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`)
	close(open)
	if c := i.closed(ada); c.Outcome != "completed" || c.Waived != 1 || i.state(id) != "waived" {
		t.Errorf("cascade %+v, item %s; want completed with it waived", c, i.state(id))
	}
}

// TestWaive_NeedsAnApproverWhereTheTenantSaysSo requests, declines and approves waivers, and shows that an operator
// cannot decide on one, or remove the setting.
func TestWaive_NeedsAnApproverWhereTheTenantSaysSo(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	approver := i.token(uuid.Nil, auth.ClassApprover)
	i.must(http.MethodPatch, "/v1/tenants/acme", i.operator, `{"waiverApproval":true}`)
	if status, _ := i.call(http.MethodPatch, "/v1/tenants/acme", i.operator, `{"waiverApproval":false}`); status != http.StatusForbidden {
		t.Errorf("an operator removes the approval: %d", status)
	}
	ada := i.createUser("ada@example.com")
	stubborn := i.hold(p, ada, "", "stubborn")
	p.refuseRevocation("stubborn", http.StatusForbidden)
	i.deactivate(ada)
	c := i.closed(ada)
	path := "/v1/tenants/acme/cascades/" + c.ID.String()
	body := `{"itemId":"` + stubborn + `","reason":"the export","until":"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"}`
	request := func() string {
		t.Helper()
		status, answer := i.call(http.MethodPost, path+"/waive", i.operator, body)
		if status != http.StatusAccepted {
			t.Fatalf("the request answered %d %v", status, answer)
		}
		return "/v1/tenants/acme/waivers/" + answer["waiverId"].(string)
	}
	declined, approved := request(), request()
	if open := list[cascade.Waiver](i, "/v1/tenants/acme/waivers", i.operator); len(open) != 2 || open[0].Reference != "stubborn" {
		t.Errorf("the open requests are %+v, want both", open)
	}
	if status, _ := i.call(http.MethodPost, approved+"/approve", i.operator, `{"reason":"x"}`); status != http.StatusUnauthorized {
		t.Errorf("an operator approves: %d", status)
	}
	if status, _ := i.raw(http.MethodPost, declined+"/decline", approver, `{"reason":"too long"}`); status != http.StatusNoContent {
		t.Fatalf("the approver's refusal answered %d", status)
	}
	if state := i.state(stubborn); state != "failed" {
		t.Errorf("the item is %s, want failed until the approval", state)
	}
	if item := i.must(http.MethodPost, approved+"/approve", approver, `{"reason":"CHG-4711"}`); item["state"] != "waived" {
		t.Errorf("the approved item is %v", item)
	}
	for _, decided := range []string{declined, approved} {
		if status, _ := i.call(http.MethodPost, decided+"/approve", approver, `{"reason":"x"}`); status != http.StatusNotFound {
			t.Errorf("a request that was decided is approved again: %d", status)
		}
	}
	var verbs []string
	for _, act := range list[cascade.Done](i, path+"/acts", i.operator) {
		verbs = append(verbs, act.Verb+" by "+strings.Split(act.Actor, "-")[0])
	}
	want := []string{"request-waiver by operator", "request-waiver by operator", "decline-waiver by approver", "waive by approver"}
	if !cmp.Equal(verbs, want) {
		t.Errorf("the acts are %v, want %v", verbs, want)
	}
	i.must(http.MethodPatch, "/v1/tenants/acme", approver, `{"waiverApproval":false}`)
}
