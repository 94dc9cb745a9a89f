package app

import (
	"strings"
	"testing"
	"time"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

func TestAPlatformThatWantsToKnowIsToldOfEachLifecycleChange(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(strings.Replace(p.connector(), "type: webhook,", "type: webhook, notify: true,", 1)))
	told := func(kind string) {
		t.Helper()
		stacktest.Eventually(t, 20*time.Second, kind, func() bool { return p.called(kind, "") > 0 })
	}
	ada := i.createUser("ada@example.com")
	told("principal.joiner")
	i.must("PATCH", "/scim/v2/Users/"+ada, i.scim, `{"Operations":[{"op":"add","path":"title","value":"Countess"}]}`)
	told("principal.mover")
	i.must("POST", "/scim/v2/Groups", i.scim, `{"displayName":"team","members":[{"value":"`+ada+`"}]}`)
	told("group.changed")
	i.deactivate(ada)
	told("principal.leaver")
}

func TestAPlatformIsNotToldOfAnotherTenantsChanges(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(strings.Replace(p.connector(), "type: webhook,", "type: webhook, notify: true,", 1)))
	_, foreign, _ := i.newTenant("umbrella")
	i.must("POST", "/scim/v2/Users", foreign, `{"userName":"eve@example.com"}`)
	i.createUser("ada@example.com")
	stacktest.Eventually(t, 20*time.Second, "the own tenant's joiner", func() bool { return p.called("principal.joiner", "") > 0 })
	if n := p.called("principal.joiner", ""); n != 1 {
		t.Errorf("told of %d joiners, want only the own tenant's", n)
	}
}
