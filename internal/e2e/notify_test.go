package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

func TestNotify_SendsEachLifecycleChange(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(strings.Replace(p.connector(), "type: webhook,", "type: webhook, notify: true,", 1)))
	notified := func(kind string) {
		t.Helper()
		stacktest.Eventually(t, 20*time.Second, kind, func() bool { return p.called(kind, "") > 0 })
	}
	ada := i.createUser("ada@example.com")
	notified("principal.joiner")
	i.must("PATCH", "/scim/v2/Users/"+ada, i.scim, `{"Operations":[{"op":"add","path":"title","value":"Countess"}]}`)
	notified("principal.mover")
	i.must("POST", "/scim/v2/Groups", i.scim, `{"displayName":"team","members":[{"value":"`+ada+`"}]}`)
	notified("group.changed")
	i.deactivate(ada)
	notified("principal.leaver")
}

func TestNotify_OmitsOtherTenants(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(strings.Replace(p.connector(), "type: webhook,", "type: webhook, notify: true,", 1)))
	_, foreign, _ := i.newTenant("umbrella")
	i.must("POST", "/scim/v2/Users", foreign, `{"userName":"eve@example.com"}`)
	i.createUser("ada@example.com")
	stacktest.Eventually(t, 20*time.Second, "the joiner of the connector's tenant", func() bool {
		return p.called("principal.joiner", "") > 0
	})
	if n := p.called("principal.joiner", ""); n != 1 {
		t.Errorf("notified of %d joiners, want only that of the connector's tenant", n)
	}
}

func TestNotify_SendsGainedAndLostEntitlements(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(strings.Replace(p.connector(), "type: webhook,", "type: webhook, notify: true,", 1)))
	i.apply("  - {group: engineering-prod, team: Engineering}\n  - {when: user.title == 'Countess', role: noble}\n")
	ada := i.createUser("ada@example.com")
	group := i.createGroup("engineering-prod")
	stacktest.Eventually(t, 20*time.Second, "the joiner's notification", func() bool {
		return p.called("principal.joiner", "") > 0
	})
	notified := func(kind, gained, lost string) {
		t.Helper()
		stacktest.Eventually(t, 20*time.Second, kind+" +"+gained+" -"+lost, func() bool {
			return p.notified(kind, ada, gained, lost)
		})
	}
	i.join(group, ada)
	notified("entitlements.changed", "team:Engineering", "")
	i.patch("/Users/"+ada, `{"op":"add","path":"title","value":"Countess"}`)
	notified("principal.mover", "role:noble", "")
	i.mustGrant(p, ada, "key", "role:noble")
	i.patch("/Users/"+ada, `{"op":"remove","path":"title"}`)
	notified("principal.mover", "", "role:noble")
	i.quit(group, ada)
	notified("entitlements.changed", "", "team:Engineering")
}
