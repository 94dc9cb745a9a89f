package scim_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/tenant"
)

func TestActivation_MissingResourceIs404(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	body := patchBody(`{"op":"replace","path":"active","value":false}`)
	ada := p.create("/Users", `{"userName":"ada"}`)
	gone := p.create("/Users", `{"userName":"gone"}`)
	p.do("DELETE", "/Users/"+gone, "")
	for what, path := range map[string]string{
		"an unknown id": "/Users/0198c3f5-0000-7000-8000-000000000000", "not a UUID": "/Users/ada", "another type": "/Agents/" + ada, "deleted": "/Users/" + gone,
	} {
		t.Run(what, func(t *testing.T) {
			if a := p.do("PATCH", path, body); a.status != http.StatusNotFound {
				t.Errorf("answered %d: %s", a.status, a.raw)
			}
		})
	}
	if p.restricted(ada) {
		t.Error("a user was deactivated as an agent")
	}
}

func TestActivation_ParallelChangesKeepRestrictionConsistent(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada","active":true}`)
	for range 5 {
		statuses := p.atOnce(60, func(i int) int {
			operations := fmt.Sprintf(`{"op":"replace","path":"active","value":%t}`, i%2 == 0)
			if i%5 == 0 { // not only active: reads the resource first
				operations += fmt.Sprintf(`,{"op":"replace","path":"title","value":"%d"}`, i)
			}
			return p.status("PATCH", "/Users/"+ada, patchBody(operations))
		})
		if statuses[http.StatusOK] != 60 {
			t.Errorf("statuses %v, want 60 times 200", statuses)
		}
		var active, restricted bool
		var version, audited int
		var turns string
		if err := p.row(`select r.active, exists (select 1 from restrictions x where x.principal_id = r.id), r.version, (select count(*) from changes c where c.resource_id = r.id),
			  (select string_agg(kind, ' ' order by sequence) from lifecycle_events e where e.principal_id = r.id and kind <> 'mover')
			  from resources r where r.id = $1`, ada).Scan(&active, &restricted, &version, &audited, &turns); err != nil {
			t.Fatal(err)
		}
		if restricted == active {
			t.Errorf("active %t and restricted %t, want exactly one", active, restricted)
		}
		if version != audited {
			t.Errorf("%d versions and %d audit rows, want as many", version, audited)
		}
		if !strings.HasPrefix(strings.Repeat("joiner leaver ", 400), turns) {
			t.Errorf("leaver and joiner events do not alternate: %s", turns)
		}
	}
}
