package scim_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/tenant"
)

func TestWrites_TakenNameConflictsAmongParallelPosts(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.create("/Users", `{"userName":"taken"}`)
	statuses := p.atOnce(40, func(i int) int {
		name := fmt.Sprintf("user%d", i)
		if i%8 == 0 {
			name = "taken"
		}
		return p.status("POST", "/Users", `{"userName":"`+name+`"}`)
	})
	if statuses[http.StatusCreated] != 35 || statuses[http.StatusConflict] != 5 {
		t.Errorf("statuses %v, want 35 times 201 and 5 times 409", statuses)
	}
}

func TestWrites_ParallelPatchesOfOneUserAllApply(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada"}`)
	statuses := p.atOnce(20, func(i int) int {
		return p.status("PATCH", "/Users/"+ada, patchBody(fmt.Sprintf(`{"op":"add","path":"emails","value":[{"value":"%d@example.com"}]}`, i)))
	})
	emails, _ := p.do("GET", "/Users/"+ada, "").body["emails"].([]any)
	if statuses[http.StatusOK] != 20 || len(emails) != 20 {
		t.Errorf("statuses %v and %d e-mail addresses, want 20 of each", statuses, len(emails))
	}
}

func TestWrites_RepeatedDeactivationCreatesOneEvent(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ids := make([]string, 40)
	for i := range ids {
		ids[i] = p.create("/Users", fmt.Sprintf(`{"userName":"user%d"}`, i))
	}
	statuses := p.atOnce(2*len(ids), func(i int) int { // each is sent twice
		return p.status("PATCH", "/Users/"+ids[i/2], patchBody(`{"op":"replace","path":"active","value":false}`))
	})
	if statuses[http.StatusOK] != 2*len(ids) {
		t.Errorf("statuses %v", statuses)
	}
	var events, restrictions, audited int
	if err := p.row(`select (select count(*) from lifecycle_events where kind = 'leaver'), (select count(*) from restrictions x join lifecycle_events e on e.id = x.event_id and e.principal_id = x.principal_id),
		(select count(*) from changes where changed = '{active}')`).Scan(&events, &restrictions, &audited); err != nil {
		t.Fatal(err)
	}
	if events != len(ids) || restrictions != len(ids) || audited != len(ids) {
		t.Errorf("%d events, %d restrictions with their events, %d audit rows, want %d of each", events, restrictions, audited, len(ids))
	}
}

func TestWrites_LockedResourceDoesNotDelayOthers(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	for _, operation := range []string{`{"op":"replace","path":"active","value":false}`, `{"op":"replace","path":"title","value":"x"}`} {
		t.Run(operation, func(t *testing.T) { holdARow(t, p.asTenant(t, tenant.ProfileDefault), patchBody(operation)) })
	}
}

func holdARow(t *testing.T, p *provider, patch string) {
	t.Helper()
	held, other := p.create("/Users", `{"userName":"held"}`), p.create("/Users", `{"userName":"other"}`)
	holder, watcher := p.connect(), p.connect()
	tx, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `select 1 from resources where id = $1 for update`, held); err != nil {
		t.Fatal(err)
	}
	answered := make(chan int)
	go func() {
		answered <- p.status("PATCH", "/Users/"+held, patch)
	}()
	stacktest.Eventually(t, 10*time.Second, "a write waiting for the row lock", func() bool {
		var waits bool
		err := watcher.QueryRow(t.Context(), `select exists (select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')`).Scan(&waits)
		return err == nil && waits
	})
	if a := p.do("PATCH", "/Users/"+other, patch); a.status != http.StatusOK {
		t.Errorf("the write to another resource answered %d: %s", a.status, a.raw)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the write that waited for the row answered %d", status)
	}
}

// TestWrites_LockTimeoutReturns503 checks that writes of other tenants succeed while more
// writes wait for a locked resource than the tenant has connections.
func TestWrites_LockTimeoutReturns503(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault, "lock_timeout=300ms")
	other := p.asTenant(t, tenant.ProfileDefault)
	held, free := p.create("/Users", `{"userName":"held"}`), other.create("/Users", `{"userName":"free"}`)
	holder := p.connect()
	tx, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	if _, err := tx.Exec(t.Context(), `select 1 from resources where id = $1 for update`, held); err != nil {
		t.Fatal(err)
	}
	deactivation := patchBody(`{"op":"replace","path":"active","value":false}`)
	const waiting = 20
	answers := make(chan answer, waiting)
	for range waiting {
		go func() { answers <- p.do("PATCH", "/Users/"+held, deactivation) }()
	}
	first := <-answers // the others wait, some of them for a connection
	if a := other.do("PATCH", "/Users/"+free, deactivation); a.status != http.StatusOK {
		t.Errorf("another tenant's write answered %d: %s", a.status, a.raw)
	}
	for _, a := range []answer{first, <-answers} {
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("answered %d with Retry-After %q, want 503: %s", a.status, a.header.Get("Retry-After"), a.raw)
		}
	}
	for range waiting - 2 {
		<-answers
	}
	if p.restricted(held) {
		t.Error("a write that answered 503 was applied")
	}
}

// TestWrites_DoNotScanTableSequentially: the planner prefers a sequential scan for a small
// table and keeps the plan after the table has grown.
func TestWrites_DoNotScanTableSequentially(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	conn := p.connect()
	rows, err := conn.Query(t.Context(), `insert into resources (tenant_id, id, type, unique_name, active, document, created_at, modified_at)
		select id, gen_random_uuid(), 'User', 'user' || i, true, '{"active": true}', now(), now() from tenants, generate_series(1, 1000) i returning id::text`)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	ids = ids[:40]
	if _, err := conn.Exec(t.Context(), `analyze resources`); err != nil {
		t.Fatal(err)
	}
	scans := func() (whole, indexed int) {
		err := conn.QueryRow(t.Context(), `select seq_scan, idx_scan from pg_stat_user_tables where relname = 'resources'`).Scan(&whole, &indexed)
		if err != nil {
			t.Fatal(err)
		}
		return whole, indexed
	}
	wholeBefore, indexedBefore := scans()
	for _, send := range []struct{ method, body string }{
		{"GET", ""},
		{"PATCH", patchBody(`{"op":"replace","path":"active","value":false}`)},
		{"PATCH", patchBody(`{"op":"replace","path":"title","value":"x"}`)},
	} {
		p.atOnce(len(ids), func(i int) int { return p.status(send.method, "/Users/"+ids[i], send.body) })
	}
	// Sessions report their scans within a second or when they end.
	p.db.Close()
	stacktest.Eventually(t, 10*time.Second, "index scans in pg_stat_user_tables", func() bool {
		_, indexed := scans()
		return indexed-indexedBefore >= 5*len(ids) // read; read and written; read and written
	})
	if whole, _ := scans(); whole != wholeBefore {
		t.Errorf("the table was scanned sequentially %d times", whole-wholeBefore)
	}
}
