package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/evidence"
)

// archived waits until the histories of all closed cascades are archived.
func (i *installation) archived() {
	i.t.Helper()
	stacktest.Eventually(i.t, time.Minute, "the archive of the histories", func() bool {
		if _, err := i.app.Archive().StoreClosed(i.t.Context()); err != nil {
			i.t.Fatal(err)
		}
		i.sql(`update lifecycle_events set archive_due_at = null where archived_at is null`) // else it waits for a minute
		var open bool
		err := i.connect().QueryRow(i.t.Context(), `
			select exists (select 1 from lifecycle_events where kind = 'leaver' and archived_at is null)`).Scan(&open)
		return err == nil && !open
	})
}

// tablesWith returns the tables, of all, that have a text.
func (i *installation) tablesWith(text string) (found []string) {
	i.t.Helper()
	conn := i.connect()
	rows, err := conn.Query(i.t.Context(), `select tablename from pg_tables where schemaname = 'public'`)
	if err != nil {
		i.t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		i.t.Fatal(err)
	}
	for _, table := range tables {
		var has bool
		sql := `select exists (select 1 from ` + pgx.Identifier{table}.Sanitize() + ` x where x::text ilike '%' || $1 || '%')`
		if err := conn.QueryRow(i.t.Context(), sql, text).Scan(&has); err != nil {
			i.t.Fatal(err)
		}
		if has {
			found = append(found, table)
		}
	}
	return found
}

// erase asks to erase a principal.
func (i *installation) erase(principal, token string) (int, map[string]any) {
	i.t.Helper()
	return i.call(http.MethodPost, "/v1/tenants/acme/principals/"+principal+"/erase", token, `{"reason":"GDPR-4711"}`)
}

// TestErasure_LeavesNothingThatNamesThePerson erases a person whose name stands wherever a client or an operator can put
// it, and then looks for it in all tables. The chain of evidence still verifies.
func TestErasure_LeavesNothingThatNamesThePerson(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	const name = "lovelace"
	ada := i.must(http.MethodPost, "/scim/v2/Users", i.scim, `{"userName":"`+name+`@example.com","externalId":"`+name+`-1",
		"displayName":"Ada `+name+`","emails":[{"value":"`+name+`@example.com"}],"name":{"familyName":"`+name+`"}}`)["id"].(string)
	bob := i.createUser("bob@example.com")
	agent := i.createAgent("outreach", ada)
	p.issue(name + "-key")
	p.issue("bob-key")
	misspelt := i.hold(p, ada, agent, name+"-kye")
	i.must(http.MethodPost, "/v1/tenants/acme/credentials/"+misspelt+"/correct", i.operator,
		`{"reference":"`+name+`-key","reason":"`+name+` misspelt it"}`)
	i.hold(p, bob, "", "bob-key")
	p.refuseRevocation(name+"-key", http.StatusForbidden)
	i.must(http.MethodDelete, "/scim/v2/Users/"+ada, i.scim, "")
	failed := i.closed(ada)
	i.archived()
	approver := i.approver()
	if status, answer := i.erase(ada, approver); status != http.StatusConflict || !strings.Contains(fmt.Sprint(answer["detail"]), "30 days") {
		t.Errorf("right after the deletion: %d %v, want 409", status, answer)
	}
	i.sql(`update resources set deleted_at = deleted_at - interval '31 days' where deleted_at is not null`)
	if status, answer := i.erase(ada, approver); status != http.StatusConflict || !strings.Contains(fmt.Sprint(answer["detail"]), "open, failed") {
		t.Errorf("while a credential is alive: %d %v, want 409", status, answer)
	}
	p.interceptWith(nil)
	i.must(http.MethodPost, "/v1/tenants/acme/cascades/"+failed.ID.String()+"/rerun", i.operator, `{"reason":"`+name+` left"}`)
	if c := i.closed(ada); c.Outcome != "completed" {
		t.Fatalf("the cascade is %s, want completed", c.Outcome)
	}
	i.archived()
	i.exported()
	for _, refused := range []struct {
		principal, token string
		want             int
	}{
		{ada, i.operator, http.StatusUnauthorized},
		{bob, approver, http.StatusConflict},
		{uuid.NewString(), approver, http.StatusNotFound},
		{agent, approver, http.StatusNotFound},
	} {
		if status, answer := i.erase(refused.principal, refused.token); status != refused.want {
			t.Errorf("%s: %d %v, want %d", refused.principal, status, answer, refused.want)
		}
	}
	if len(i.tablesWith(name)) < 5 {
		t.Fatalf("only %v have the name before the erasure", i.tablesWith(name))
	}
	status, answer := i.erase(ada, approver)
	if status != http.StatusOK || answer["records"].(float64) < 3 {
		t.Fatalf("the erasure answered %d %v\n%s", status, answer, i.logs)
	}
	if with := i.tablesWith(name); len(with) != 0 {
		t.Errorf("%v still have the name", with)
	}
	if err := i.app.Chain().Extend(t.Context(), i.tenant.ID); err != nil {
		t.Fatal(err)
	}
	report, entries := i.exported()
	if len(report.Faults) != 0 || report.Erased != int(answer["records"].(float64)) {
		t.Errorf("%d records are erased, with the faults %q, want %v", report.Erased, report.Faults, answer["records"])
	}
	if !slices.ContainsFunc(entries, func(c evidence.Chained) bool {
		return c.Entry.Source == evidence.ErasureSource && strings.Contains(string(c.Entry.Record), ada) &&
			strings.Contains(string(c.Entry.Record), "GDPR-4711")
	}) {
		t.Error("no record says that the person was erased, and why")
	}
	if status, answer := i.erase(ada, approver); status != http.StatusOK || answer["records"] != 0.0 {
		t.Errorf("a second erasure answered %d %v, want 200 without records", status, answer)
	}
	if !slices.ContainsFunc(entries, func(c evidence.Chained) bool {
		return c.Entry.Erased() && c.Entry.Source == "acts" && strings.Contains(string(c.Entry.Record), `"verb":"rerun"`) &&
			strings.Contains(string(c.Entry.Record), `"actor":"operator-token/`)
	}) {
		t.Error("no record says who re-ran the cascade, without the reason")
	}
	if shown := i.must(http.MethodGet, "/v1/tenants/acme/cascades/"+failed.ID.String(), i.operator, ""); shown["outcome"] != "completed" {
		t.Errorf("the cascade is shown as %v", shown)
	}
	i.deactivate(bob) // others are not touched
	if c := i.closed(bob); c.Outcome != "completed" {
		t.Errorf("the cascade of another person is %s", c.Outcome)
	}
}

// age makes all entries of the chain older.
func (i *installation) age(days int) {
	i.t.Helper()
	i.sql(`alter table evidence_chain disable trigger user`)
	i.sql(fmt.Sprintf(`update evidence_chain set chained_at = chained_at - interval '%d days'`, days))
	i.sql(`alter table evidence_chain enable trigger user`)
}

// TestErasure_RetentionErasesWhatIsOlder also shows who may shorten it, that a legal hold stops it, and that a SIEM which
// was down gets the rest.
func TestErasure_RetentionErasesWhatIsOlder(t *testing.T) {
	long(t)
	p := newPlatform(t)
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	i := install(t, withConnectors(p.connector()), func(c *config.Config) {
		c.Audit = config.Audit{Sink: "file", Address: file}
	})
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	i.hold(p, ada, "", "a")
	i.hold(p, bob, "", "b")
	i.deactivate(ada)
	first := i.closed(ada)
	i.archived()
	for range 3 { // of 40 days ago
		i.sql(`insert into acts (tenant_id, event_id, actor, verb, reason, at) values ('` + i.tenant.ID.String() + `', '` +
			first.ID.String() + `', 'operator-token/1', 'retry', 'a reason', now() - interval '40 days')`)
	}
	i.exported()
	i.age(40)
	i.sql(`alter table cascade_histories disable trigger user`)
	i.sql(`update cascade_histories set archived_at = archived_at - interval '40 days'`)
	i.sql(`alter table cascade_histories enable trigger user`)
	i.deactivate(bob)
	i.closed(bob)
	i.archived()
	approver := i.approver()
	set := func(token, body string) int {
		status, _ := i.call(http.MethodPatch, "/v1/tenants/acme", token, body)
		return status
	}
	for _, c := range []struct {
		token, body string
		want        int
	}{
		{i.operator, `{"evidenceDays":30}`, http.StatusForbidden},
		{approver, `{"evidenceDays":29}`, http.StatusUnprocessableEntity},
		{i.operator, `{"legalHold":" "}`, http.StatusUnprocessableEntity},
		{i.operator, `{"legalHold":"a\u0000"}`, http.StatusUnprocessableEntity},
		{i.operator, `{"legalHold":"case 17"}`, http.StatusOK},
		{i.operator, `{"legalHold":""}`, http.StatusForbidden},
		{approver, `{"evidenceDays":30}`, http.StatusOK},
		{i.operator, `{"evidenceDays":3650}`, http.StatusOK},
		{i.operator, `{"evidenceDays":30}`, http.StatusForbidden},
		{approver, `{"evidenceDays":30}`, http.StatusOK},
	} {
		if got := set(c.token, c.body); got != c.want {
			t.Errorf("%s answered %d, want %d", c.body, got, c.want)
		}
	}
	expire := func() int {
		n, err := i.app.Erasure().Expire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := expire(); n != 0 {
		t.Errorf("%d records were erased in spite of the legal hold", n)
	}
	err := i.app.DB.InTenant(t.Context(), i.tenant.ID, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `select erase_records($1, array[1])`, i.tenant.ID)
		return err
	})
	if err == nil {
		t.Error("the database erases in spite of the legal hold")
	}
	if got := set(approver, `{"legalHold":""}`); got != http.StatusOK {
		t.Fatalf("the approver lifts the hold: %d", got)
	}
	erased := expire()
	report, entries := i.exported()
	if erased != 3 || report.Erased != erased || len(report.Faults) != 0 {
		t.Errorf("%d records were erased, %d in the export, with the faults %q", erased, report.Erased, report.Faults)
	}
	// Records that only the database says to be old are not erased.
	kept := 0
	for _, c := range entries {
		if strings.Contains(string(c.Entry.Texts), "a reason") {
			t.Errorf("record %d is not erased: %s", c.Entry.Sequence, c.Entry.Texts)
		}
		if c.Entry.Texts != nil && strings.Contains(string(c.Entry.Record), first.ID.String()) {
			kept++
		}
	}
	if kept == 0 {
		t.Error("the evidence of today is erased, too")
	}
	err = i.connect().QueryRow(t.Context(), `select count(*) from cascade_histories where history is not null`).Scan(&kept)
	if err != nil || kept != 1 {
		t.Errorf("%d histories are kept, %v, want that of today", kept, err)
	}
	if n := expire(); n != 0 {
		t.Errorf("%d records were erased again", n)
	}
	stacktest.Eventually(t, time.Minute, "the audit sink", func() bool {
		if _, err := i.app.Follower().SendDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		health, err := i.app.Follower().Health(t.Context())
		return err == nil && health.Pending == 0
	})
	sent, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(sent), `"operation":"evidence.erase"`) {
		t.Errorf("the sink does not have the erasure: %v", err)
	}
}

// TestErasure_OfAnotherTenantIsRefused calls the database's functions for another tenant.
func TestErasure_OfAnotherTenantIsRefused(t *testing.T) {
	i := installAPI(t)
	other, _, _ := i.newTenant("globex")
	ada := i.createUser("ada@example.com")
	for _, sql := range []string{
		`select erase_records($1, array[1]::bigint[])`, `select erase_histories($1, now())`, `select erase_principal($1, '` + ada + `')`,
	} {
		err := i.app.DB.InTenant(context.WithoutCancel(t.Context()), other.ID, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), sql, i.tenant.ID)
			return err
		})
		if err == nil {
			t.Errorf("%s was allowed", sql)
		}
	}
	var stored json.RawMessage
	err := i.connect().QueryRow(t.Context(), `select document from resources where id = $1`, ada).Scan(&stored)
	if err != nil || !strings.Contains(string(stored), "ada@example.com") {
		t.Errorf("the user is %s, %v", stored, err)
	}
}
