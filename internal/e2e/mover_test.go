package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

func TestMover_RunsForAgentWithChangedOwners(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(strings.Replace(p.connector(), "type: webhook,", "type: webhook, notify: true,", 1)))
	i.apply("  - {group: bots, scopes: [mail]}\n")
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	agent := i.createAgent("outreach", ada)
	i.createGroup("bots", agent)
	i.becomes(agent, "scope:mail")
	mail := i.mustGrant(p, agent, "mail-key", "scope:mail")
	i.patch("/Agents/"+agent, `{"op":"replace","path":"owners","value":[{"value":"`+bob+`"}]}`)
	stacktest.Eventually(t, 20*time.Second, "the notification of the platform", func() bool {
		return p.called("principal.mover", "") > 0
	})
	changes := i.must("GET", "/v1/tenants/acme/changes?resource="+agent, i.operator, "")["items"].([]any)
	if newest := changes[0].(map[string]any); fmt.Sprint(newest["changed"]) != "[owners]" {
		t.Errorf("the newest change: %v", newest)
	}
	if state := i.state(mail); state != "live" || !i.active(agent) {
		t.Errorf("with another owner the agent is active: %t, and its key is %s", i.active(agent), state)
	}
	for owner, want := range map[string]string{ada: "not_delegated", bob: "not_entitled"} { // the scope is the agent's own
		if reason := i.ask(agentFor(agent, owner), "mail", entityOf("service", "api")); reason != want {
			t.Errorf("acting for %s: %s, want %s", owner, reason, want)
		}
	}
	if reason := i.ask(entityOf("agent", agent), "mail", entityOf("service", "api")); reason != "allow" {
		t.Errorf("acting for itself: %s, want allow", reason)
	}
}

// lose grants Ada keys under an entitlement, and makes her lose the entitlement.
func (i *installation) lose(p *platform, references ...string) (ada string, items []string) {
	i.t.Helper()
	i.apply(engineering)
	ada = i.createUser("ada@example.com")
	group := i.createGroup("engineering-prod", ada)
	i.becomes(ada, "role:developer", "scope:deploy", "team:Engineering")
	for _, reference := range references {
		items = append(items, i.mustGrant(p, ada, reference, "team:Engineering"))
	}
	i.quit(group, ada)
	return ada, items
}

func TestWaiver_OfMoverSurvivorExpires(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()), func(c *config.Config) { c.Policy.Deadline = time.Second })
	p.refuseRevocation("stubborn", http.StatusForbidden)
	ada, items := i.lose(p, "stubborn")
	move := i.closed(ada)
	if move.Kind != lifecycle.Mover || move.Outcome != "failed" {
		t.Fatalf("the move: %+v", move)
	}
	path := "/v1/tenants/acme/cascades/" + move.ID.String()
	i.must("POST", path+"/waive", i.operator, fmt.Sprintf(`{"itemId":%q,"reason":"the export must finish","until":%q}`,
		items[0], time.Now().Add(time.Hour).UTC().Format(time.RFC3339)))
	i.must("POST", path+"/rerun", i.operator, `{"reason":"see"}`)
	if c := i.closed(ada); c.Outcome != "completed" || c.Waived != 1 || i.state(items[0]) != "waived" {
		t.Errorf("after the re-run: %+v, the key %s; want completed and still waived", c, i.state(items[0]))
	}
	p.interceptWith(nil)
	i.sql(`update credentials set waived_until = now() - interval '1 minute' where id = $1`, items[0])
	if found := i.reconcile(); found.Waivers != 1 {
		t.Errorf("the reconciler found %+v; want one expired waiver", found)
	}
	i.becomesState(items[0], "verified")
	if p.isAlive("stubborn") {
		t.Error("the key still works")
	}
}

func TestReconciler_RestartsLostMove(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	p.refuseRevocation("key", http.StatusServiceUnavailable)
	ada, items := i.lose(p, "key")
	stacktest.Eventually(t, 20*time.Second, "the first attempt", func() bool {
		return p.called("credential.revoke", "key") > 0
	})
	move := i.cascades(ada)[0]
	i.loseWorkflow(move)
	p.interceptWith(nil)
	i.sql(`update lifecycle_events set started_at = now() - interval '1 hour' where id = $1`, move.ID)
	if found := i.reconcile(); found.Restarted != 1 {
		t.Errorf("found %+v; want the move restarted", found)
	}
	if c := i.closed(ada); c.Kind != lifecycle.Mover || c.Outcome != "completed" || i.state(items[0]) != "verified" {
		t.Errorf("the move %+v, the key %s; want completed and verified", c, i.state(items[0]))
	}
}

func TestWorker_KilledMidMoveLosesNothing(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	reached, over := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(over) })
	var later atomic.Bool
	p.interceptWith(func(_ http.ResponseWriter, kind, reference string) bool {
		if kind == "credential.revoke" && reference == "b" && !later.Swap(true) {
			close(reached)
			<-over // the response never arrives
		}
		return false
	})
	worker := i.process([]string{"worker"}, p.connector())
	ada, items := i.lose(p, "a", "b", "c")
	plain := i.hold(p, ada, "", "plain")
	i.killOnce(reached, worker)
	i.process([]string{"worker"}, p.connector())
	if c := i.closed(ada); c.Kind != lifecycle.Mover || c.Outcome != "completed" || c.Verified != len(items) {
		t.Errorf("the move %+v; want completed with %d verified", c, len(items))
	}
	if state := i.state(plain); state != "live" || !p.isAlive("plain") {
		t.Errorf("the key without an entitlement is %s, want live", state)
	}
}
