package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/workflows"
)

func TestCascade_CompletesWithoutCredentials(t *testing.T) {
	i := install(t)
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" {
		t.Fatalf("outcome %s, want completed; logs:\n%s", c.Outcome, i.logs)
	}
}

func TestCascade_EndsCredentialsOfPrincipalAndAgents(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	hers := i.createAgent("hers", ada)
	shared := i.must("POST", "/scim/v2/Agents", i.scim,
		`{"agentUserName":"shared","owners":[{"value":"`+ada+`"},{"value":"`+bob+`"}]}`)["id"].(string)

	ended := map[string]string{
		"for Ada by her agent":      i.hold(p, ada, hers, "a"),
		"for Ada by a shared agent": i.hold(p, ada, shared, "b"),
		"the agent's own":           i.hold(p, hers, hers, "c"),
		"for Ada, without an agent": i.hold(p, ada, "", "d"),
	}
	kept := map[string]string{
		"the shared agent's own":      i.hold(p, shared, shared, "e"),
		"for Bob by the shared agent": i.hold(p, bob, shared, "f"),
	}
	i.deactivate(ada)
	c := i.closed(ada)
	if c.Outcome != "completed" || c.Verified != len(ended) || c.Survivors != 0 {
		t.Errorf("cascade %+v; want %d verified", c, len(ended))
	}
	for what, id := range ended {
		if s := i.state(id); s != "verified" {
			t.Errorf("%s is %s, want verified", what, s)
		}
	}
	for what, id := range kept {
		if s := i.state(id); s != "live" {
			t.Errorf("%s is %s, want live", what, s)
		}
	}
	if got := i.must("GET", "/scim/v2/Agents/"+hers, i.scim, "")["active"]; got != false {
		t.Errorf("the orphaned agent's active is %v, want false", got)
	}
	if got := i.must("GET", "/scim/v2/Agents/"+shared, i.scim, "")["active"]; got == false {
		t.Error("the agent with another owner was suspended")
	}
}

func TestCascade_LeavesCredentialsIssuedAfterReactivation(t *testing.T) {
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector())) // no worker yet, so that the cascade starts late
	ada := i.createUser("ada@example.com")
	before := i.hold(p, ada, "", "before")
	i.deactivate(ada)
	i.must("PATCH", "/scim/v2/Users/"+ada, i.scim, `{"Operations":[{"op":"replace","path":"active","value":true}]}`)
	after := i.hold(p, ada, "", "after")
	i.work()
	i.closed(ada)
	if got := map[string]string{"before": i.state(before), "after": i.state(after)}; !cmp.Equal(got,
		map[string]string{"before": "verified", "after": "live"}) {
		t.Errorf("states %v; want before verified and after live", got)
	}
}

func TestCascade_RerunEndsOnlySurvivor(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	good, bad := i.hold(p, ada, "", "good"), i.hold(p, ada, "", "bad")
	p.interceptWith(func(w http.ResponseWriter, kind, reference string) bool {
		if kind == "credential.revoke" && reference == "bad" {
			http.Error(w, `{"error":"access_denied"}`, http.StatusForbidden)
			return true
		}
		return false
	})
	i.deactivate(ada)
	first := i.closed(ada)
	if first.Outcome != "failed" || first.Survivors != 1 || first.Verified != 1 {
		t.Fatalf("cascade %+v; want failed with 1 survivor", first)
	}
	if got := i.state(bad); got != "failed" {
		t.Fatalf("the refused credential is %s, want failed", got)
	}
	p.interceptWith(nil)
	path := "/v1/tenants/acme/cascades/" + first.ID.String()
	if status, _ := i.call("POST", path+"/rerun", i.operator, `{}`); status != http.StatusUnprocessableEntity {
		t.Errorf("a re-run without a reason answered %d, want 422", status)
	}
	run := i.must("POST", path+"/rerun", i.operator, `{"reason":"the platform's rights were fixed"}`)["runId"].(string)
	if run == *first.RunID {
		t.Error("the re-run is the old run")
	}
	second := i.must("GET", path+"?wait=60s", i.operator, "")
	if second["outcome"] != "completed" || second["runId"] != run {
		t.Fatalf("after the re-run: %v; want completed by run %s", second, run)
	}
	if got := []string{i.state(good), i.state(bad)}; !cmp.Equal(got, []string{"verified", "verified"}) {
		t.Errorf("states %v, want both verified", got)
	}
	got := []int{p.called("credential.revoke", "good"), p.called("credential.revoke", "bad")}
	if !cmp.Equal(got, []int{1, 2}) {
		t.Errorf("revocations of good and bad: %v, want 1 and 2", got)
	}
	if status, _ := i.call("POST", path+"/rerun", i.operator, `{"reason":"again"}`); status != http.StatusConflict {
		t.Errorf("a re-run of a completed cascade answered %d, want 409", status)
	}
}

func TestCascade_RevokesAgainIfProbeFindsCredentialAlive(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "liar")
	lies := 1
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
		if kind == "credential.revoke" && lies > 0 {
			lies--
			w.WriteHeader(http.StatusOK) // without revoking it
			return true
		}
		return false
	})
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || i.state(id) != "verified" {
		t.Errorf("cascade %s, credential %s; want completed and verified", c.Outcome, i.state(id))
	}
	if n := p.called("credential.revoke", "liar"); n != 2 {
		t.Errorf("revoked %d times, want 2", n)
	}
}

func TestCascade_FailsIfProbeAlwaysFindsCredentialAlive(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()), func(c *config.Config) {
		c.Policy.Deadline, c.Policy.AttemptTimeout = time.Second, 2*time.Second
	})
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "liar")
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
		w.WriteHeader(http.StatusOK)
		if kind == "credential.verify" {
			_, _ = w.Write([]byte(`{"alive":true}`))
		}
		return true
	})
	i.deactivate(ada)
	c := i.closed(ada)
	if c.Outcome != "failed" || c.Survivors != 1 || i.state(id) != "failed" {
		t.Errorf("cascade %+v, credential %s; want failed with a survivor", c, i.state(id))
	}
}

func TestCascade_RetriesTransientFailures(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "flaky")
	answers := []func(http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusAccepted) },
	}
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
		if kind != "credential.revoke" || len(answers) == 0 {
			return false
		}
		answers[0](w)
		answers = answers[1:]
		return true
	})
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || i.state(id) != "verified" {
		t.Errorf("cascade %s, credential %s; want completed and verified", c.Outcome, i.state(id))
	}
	records, _, err := i.app.Evidence().ByEvent(t.Context(), i.tenant.ID, i.cascades(ada)[0].ID, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, r := range records {
		if r.Step == "revoke" && r.Outcome == "failed" {
			failed++
		}
	}
	if failed != 3 {
		t.Errorf("evidence of %d failed attempts, want 3: %+v", failed, records)
	}
}

func TestCascade_SlowCredentialDelaysNoOther(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	slow, quick := i.hold(p, ada, "", "slow"), i.hold(p, ada, "", "quick")
	open := make(chan struct{})
	p.interceptWith(func(w http.ResponseWriter, kind, reference string) bool {
		if kind == "credential.revoke" && reference == "slow" {
			<-open
		}
		return false
	})
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the quick one's end", func() bool { return i.state(quick) == "verified" })
	if s := i.state(slow); s != "ending" {
		t.Errorf("the slow one is %s, want ending", s)
	}
	close(open)
	if c := i.closed(ada); c.Outcome != "completed" {
		t.Errorf("outcome %s, want completed", c.Outcome)
	}
}

func TestRetry_RetriesRunningCascadeNow(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()), func(c *config.Config) {
		c.Policy.InitialInterval, c.Policy.MaximumInterval, c.Policy.Deadline = time.Hour, time.Hour, 24*time.Hour
	})
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "down")
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
		if kind == "credential.revoke" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the first attempt", func() bool {
		return p.called("credential.revoke", "down") > 0
	})
	p.interceptWith(nil)
	stacktest.Eventually(t, 20*time.Second, "the item in the workflow's progress", func() bool {
		var progress workflows.Progress
		answer, err := i.app.Temporal.QueryWorkflow(t.Context(), i.cascades(ada)[0].WorkflowID, "", workflows.QueryProgress)
		return err == nil && answer.Get(&progress) == nil && len(progress.Items) == 1 && progress.Items[0].State == "ending"
	})
	path := "/v1/tenants/acme/cascades/" + i.cascades(ada)[0].ID.String() + "/retry"
	stacktest.Eventually(t, 20*time.Second, "the retry", func() bool {
		status, answer := i.call("POST", path, i.operator, `{"itemId":"`+id+`","reason":"the platform is back"}`)
		return status == http.StatusAccepted && answer["retried"] == 1.0
	})
	if c := i.closed(ada); c.Outcome != "completed" || i.state(id) != "verified" {
		t.Errorf("cascade %s, credential %s; want completed and verified", c.Outcome, i.state(id))
	}
}

func TestAgent_EndsWhenOwnerGroupIsEmptied(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	team := i.must("POST", "/scim/v2/Groups", i.scim,
		`{"displayName":"team","members":[{"value":"`+ada+`"}]}`)["id"].(string)
	agent := i.createAgent("teams-agent", team)
	id := i.hold(p, agent, agent, "own")
	// The IdP removes the member from the group before it deactivates the user.
	i.must("PATCH", "/scim/v2/Groups/"+team, i.scim,
		`{"Operations":[{"op":"remove","path":"members[value eq \"`+ada+`\"]"}]}`)
	i.deactivate(ada)
	if c := i.closed(agent); c.Outcome != "completed" || c.Trigger != "orphaned" || i.state(id) != "verified" {
		t.Errorf("cascade %+v, credential %s; want it orphaned, completed and verified", c, i.state(id))
	}
}

func TestCascade_IncludesSurvivorsOfEarlierCascade(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "stubborn")
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
		if kind == "credential.revoke" {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "failed" {
		t.Fatalf("outcome %s, want failed", c.Outcome)
	}
	i.must("DELETE", "/scim/v2/Users/"+ada, i.scim, "")
	if c := i.closed(ada); c.Trigger != "scim-delete" || c.Outcome != "failed" || c.Survivors != 1 {
		t.Errorf("the deletion's cascade %+v; want failed with the survivor", c)
	}
	if s := i.state(id); s != "failed" {
		t.Errorf("the credential is %s, want failed", s)
	}
}

func TestRotation_GivesNewSecretToOtherHolders(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	p.issue("account")
	var ids []string
	for _, holder := range []string{ada, bob} {
		ids = append(ids, i.must("POST", "/v1/credentials", i.platform,
			`{"principalId":"`+holder+`","kind":"service_account","connector":"platform",`+
				`"reference":"account","secret":"old","shared":true}`)["id"].(string))
	}
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" {
		t.Fatalf("cascade %+v, want completed", c)
	}
	if got := []string{i.state(ids[0]), i.state(ids[1])}; !cmp.Equal(got, []string{"verified", "live"}) {
		t.Errorf("states %v, want verified for the leaver and live for the other", got)
	}
	opened, err := i.app.Credentials().Open(t.Context(), i.tenant.ID, uuid.MustParse(ids[1]))
	if err != nil {
		t.Fatal(err)
	}
	want := p.secrets["account"]
	if len(want) != 1 || opened.Secret.Reveal() != want[0] || !cmp.Equal(p.published["account"], want) {
		t.Errorf("the platform has %d new secrets; want one, which the other holder has and was sent", len(want))
	}
}

func TestBatch_RetriesOnlyFailedItems(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	var ids []string
	for n := range 30 {
		ids = append(ids, i.hold(p, ada, "", fmt.Sprint("key-", n)))
	}
	var mu sync.Mutex
	failures := map[string]int{"key-3": 1, "key-17": 2}
	p.interceptWith(func(w http.ResponseWriter, kind, reference string) bool {
		mu.Lock()
		defer mu.Unlock()
		if kind != "credential.revoke" || failures[reference] == 0 {
			return false
		}
		failures[reference]--
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || c.Verified != len(ids) {
		t.Fatalf("cascade %+v; want completed with %d verified", c, len(ids))
	}
	for n := range ids {
		want := map[int]int{3: 2, 17: 3}[n]
		if want == 0 {
			want = 1
		}
		if got := p.called("credential.revoke", fmt.Sprint("key-", n)); got != want {
			t.Errorf("key-%d was revoked %d times, want %d", n, got, want)
		}
	}
}

// TestConnector_RateHoldsAcrossCascades checks that 20 attempts of two cascades at 5
// per second take at least 2 s, a bound that holds on slow machines too.
func TestConnector_RateHoldsAcrossCascades(t *testing.T) {
	long(t)
	i := installAPI(t)
	seen := &attempts{}
	i.app.Connectors = registry.Registry{"noop": {Connector: seen, Tenants: []string{registry.AllTenants}, Rate: 5}}
	i.work()
	people := []string{i.createUser("ada@example.com"), i.createUser("bob@example.com")}
	for _, id := range people {
		i.register("noop", uuid.MustParse(id), 10)
	}
	for _, id := range people {
		i.deactivate(id)
	}
	for _, id := range people {
		if c := i.closed(id); c.Outcome != "completed" || c.Revoked != 10 {
			t.Errorf("cascade %+v; want completed with 10 revoked", c)
		}
	}
	if spread := seen.last.Sub(seen.first); spread < 2*time.Second {
		t.Errorf("20 attempts at 5 per second took %s, want at least 2 s", spread)
	}
}

// attempts records the times of the first and the last attempt.
type attempts struct {
	noopConnector
	mu          sync.Mutex
	first, last time.Time
}

func (a *attempts) Revoke(context.Context, connectors.Target) (connectors.Answer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = time.Now()
	if a.first.IsZero() {
		a.first = a.last
	}
	return connectors.Answer{Outcome: connectors.Done}, nil
}
