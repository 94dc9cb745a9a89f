package scim_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/tenant"
)

// Writes that come at a time share a commit. Nobody may notice.

// atOnce sends requests in parallel, and counts their statuses.
func (p *provider) atOnce(n int, send func(i int) answer) map[int]int {
	p.t.Helper()
	var mu sync.Mutex
	var all sync.WaitGroup
	statuses := make(map[int]int)
	for i := range n {
		all.Go(func() {
			a := send(i)
			mu.Lock()
			defer mu.Unlock()
			statuses[a.status]++
		})
	}
	all.Wait()
	return statuses
}

func TestATakenNameAmongManyPOSTsIsNobodyElsesConflict(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.create("/Users", `{"userName":"taken"}`)
	statuses := p.atOnce(40, func(i int) answer {
		name := fmt.Sprintf("user%d", i)
		if i%8 == 0 {
			name = "taken"
		}
		return p.do("POST", "/Users", `{"userName":"`+name+`"}`)
	})
	if statuses[http.StatusCreated] != 35 || statuses[http.StatusConflict] != 5 {
		t.Errorf("statuses %v; want 35 times 201 and 5 times 409", statuses)
	}
}

func TestParallelPATCHesOfOneUserAreAllMade(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada"}`)
	statuses := p.atOnce(20, func(i int) answer {
		return p.do("PATCH", "/Users/"+ada, patchBody(fmt.Sprintf(`{"op":"add","path":"emails","value":[{"value":"%d@example.com"}]}`, i)))
	})
	emails, _ := p.do("GET", "/Users/"+ada, "").body["emails"].([]any)
	if statuses[http.StatusOK] != 20 || len(emails) != 20 {
		t.Errorf("statuses %v and %d e-mail addresses; want 20 of each", statuses, len(emails))
	}
}

func TestEachOfManyDeactivationsIsOneEventAndOneRestriction(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ids := make([]string, 40)
	for i := range ids {
		ids[i] = p.create("/Users", fmt.Sprintf(`{"userName":"user%d"}`, i))
	}
	p.atOnce(2*len(ids), func(i int) answer { // each is sent twice
		return p.do("PATCH", "/Users/"+ids[i/2], patchBody(`{"op":"replace","path":"active","value":false}`))
	})
	var events, restrictions, audited int
	if err := p.row(`select (select count(*) from lifecycle_events where kind = 'leaver'), (select count(*) from restrictions x join lifecycle_events e on e.id = x.event_id and e.principal_id = x.principal_id),
		(select count(*) from changes where changed = '{active}')`).Scan(&events, &restrictions, &audited); err != nil {
		t.Fatal(err)
	}
	if events != len(ids) || restrictions != len(ids) || audited != len(ids) {
		t.Errorf("%d events, %d restrictions of their own, %d audit rows; want %d of each", events, restrictions, audited, len(ids))
	}
}

func TestARowThatSomebodyHoldsHoldsUpNobodyElse(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	held, other := p.create("/Users", `{"userName":"held"}`), p.create("/Users", `{"userName":"other"}`)
	conn, err := pgx.Connect(t.Context(), p.database.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `select 1 from resources where id = $1 for update`, held); err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer func() { _ = tx.Rollback(t.Context()) }() // before waiting for who waits for it
	waiting.Go(func() {
		if a := p.do("PATCH", "/Users/"+held, patchBody(`{"op":"replace","path":"active","value":false}`)); a.status != http.StatusOK {
			t.Errorf("who waited for the row was answered %d", a.status)
		}
	})
	stacktest.Eventually(t, 10*time.Second, "a write that waits for the row", func() bool {
		var waits bool
		err := p.row(`select exists (select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')`).Scan(&waits)
		return err == nil && waits
	})
	if a := p.do("PATCH", "/Users/"+other, patchBody(`{"op":"replace","path":"active","value":false}`)); a.status != http.StatusOK {
		t.Errorf("somebody else was answered %d: %s", a.status, a.raw)
	}
}
