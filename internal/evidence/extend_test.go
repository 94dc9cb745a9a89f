package evidence_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/tenant"
)

// book is a tenant's chain, with the owner's connection to its database, which can change what the application cannot.
type book struct {
	*evidence.Chain
	db     *database.DB
	tenant uuid.UUID
	owner  *pgx.Conn
}

func newBook(t *testing.T) book {
	t.Helper()
	db, at := stacktest.Open(t)
	sealer := stacktest.NewSealer(t)
	of, err := tenant.NewStore(db).Create(t.Context(), "acme", tenant.ProfileDefault) // records an act
	if err != nil {
		t.Fatal(err)
	}
	owner, err := pgx.Connect(t.Context(), at.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Close(context.Background()) })
	return book{evidence.NewChain(db, sealer), db, of.ID, owner}
}

func (b book) sql(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := b.owner.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// tamper runs a statement that the append-only tables refuse.
func (b book) tamper(t *testing.T, sql string) {
	t.Helper()
	for _, table := range []string{"evidence_chain", "evidence_checkpoints"} {
		b.sql(t, `alter table `+table+` disable trigger user`)
	}
	b.sql(t, sql)
	for _, table := range []string{"evidence_chain", "evidence_checkpoints"} {
		b.sql(t, `alter table `+table+` enable trigger user`)
	}
}

// act records n acts of operators.
func (b book) act(t *testing.T, n int) {
	t.Helper()
	for range n {
		b.sql(t, `insert into acts (tenant_id, event_id, actor, verb, reason) values ($1, $2, 'ada', 'retry', '<é>')`,
			b.tenant, uuid.New())
	}
}

func (b book) extend(t *testing.T) {
	t.Helper()
	if err := b.Extend(t.Context(), b.tenant); err != nil {
		t.Fatal(err)
	}
}

// export returns an export of the whole chain.
func (b book) export(t *testing.T) []byte {
	t.Helper()
	last, err := b.RecordExport(t.Context(), b.tenant, nil)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := b.Entries(t.Context(), b.tenant, 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	checkpoints, err := b.Checkpoints(t.Context(), b.tenant, 0, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	e, err := evidence.NewExport(&file, evidence.Header{Tenant: b.tenant}, checkpoints)
	for _, entry := range entries {
		if err == nil && entry.Entry.Sequence <= last.Statement.Sequence {
			err = e.Add(entry)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func (b book) verify(t *testing.T) evidence.Report {
	t.Helper()
	public, err := b.PublicKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report, err := evidence.Verify(bytes.NewReader(b.export(t)), evidence.NewKeys(public...))
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestChain_HasEachRecordOnceInOrder(t *testing.T) {
	b := newBook(t)
	b.act(t, 1200) // more than two batches
	b.extend(t)
	b.extend(t)
	b.act(t, 1)
	report := b.verify(t)
	if len(report.Faults) != 0 || report.Entries != 1203 { // with the creation of the tenant and the export
		t.Errorf("%d records, faults %q; want 1203 and none", report.Entries, report.Faults)
	}
	entries, err := b.Entries(t.Context(), b.tenant, report.Last-1, 10)
	if err != nil || len(entries) != 1 || !strings.Contains(string(entries[0].Entry.Record), `"verb":"evidence.export"`) {
		t.Errorf("the last record is %+v, %v; want the export", entries, err)
	}
}

// TestChain_KeepsWhatCommitsLate begins a record before others and commits it after they are chained.
func TestChain_KeepsWhatCommitsLate(t *testing.T) {
	b := newBook(t)
	late, err := b.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = late.Exec(t.Context(), `insert into acts (tenant_id, event_id, actor, verb, reason)
		values ($1, $2, 'ada', 'waive', 'late')`, b.tenant, uuid.New())
	if err != nil {
		t.Fatal(err)
	}
	err = b.db.InTenant(t.Context(), b.tenant, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `insert into acts (tenant_id, event_id, actor, verb, reason)
			values ($1, $2, 'bob', 'retry', 'early')`, b.tenant, uuid.New())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b.extend(t)
	if err := late.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if report := b.verify(t); len(report.Faults) != 0 || report.Entries != 4 {
		t.Errorf("%d records, faults %q; want 4 and none", report.Entries, report.Faults)
	}
}

func TestChain_ConcurrentProcessesExtendOneChain(t *testing.T) {
	b := newBook(t)
	b.extend(t) // so that the processes wait for the lock of an end that exists
	b.act(t, 300)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				if err := b.ExtendAll(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 50 {
		b.act(t, 1)
	}
	all.Wait()
	if report := b.verify(t); len(report.Faults) != 0 || report.Entries != 352 {
		t.Errorf("%d records, faults %q; want 352 and none", report.Entries, report.Faults)
	}
}

// TestSign_SignsNothingThatWasAltered changes the stored chain as an administrator of the database could.
func TestSign_SignsNothingThatWasAltered(t *testing.T) {
	for name, sql := range map[string]string{
		"a changed record": `update evidence_chain set record = replace(record, 'retry', 'waive') where sequence = 7`,
		"a removed record": `delete from evidence_chain where sequence = 7`,
		"a replaced salt":  `update evidence_chain set salt = decode(repeat('00', 16), 'hex') where sequence = 7`,
		"a removed end":    `delete from evidence_chain where sequence >= 9`,
		"an added record": `insert into evidence_chain (tenant_id, sequence, source, record, hash)
			select tenant_id, 11, source, record, hash from evidence_chain where sequence = 10`,
		"a removed checkpoint": `delete from evidence_checkpoints`,
		"a rewritten chain": `with recursive chain as (
			  select sequence, hash, record from evidence_chain where sequence = 5
			  union all
			  select c.sequence, sha256(p.hash || convert_to('{"record":' || replace(c.record, 'retry', 'waive') || ',"sequence":'
			    || c.sequence || ',"source":"' || c.source || '","tenant":"' || c.tenant_id || '"}', 'UTF8')),
			    replace(c.record, 'retry', 'waive')
			    from chain p join evidence_chain c on c.sequence = p.sequence + 1)
			update evidence_chain e set record = chain.record, hash = chain.hash from chain where e.sequence = chain.sequence`,
		"another end": `update evidence_heads set sealed = (select private from evidence_keys)`,
		"no end":      `update evidence_heads set sealed = '', sequence = 0, signed_sequence = 0`,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook(t)
			b.act(t, 3)
			if _, err := b.RecordExport(t.Context(), b.tenant, nil); err != nil { // a checkpoint of record 5
				t.Fatal(err)
			}
			b.act(t, 5)
			b.extend(t)
			b.tamper(t, sql)
			b.act(t, 1)
			if _, err := b.RecordExport(t.Context(), b.tenant, nil); !errors.Is(err, evidence.ErrAltered) {
				t.Errorf("%v, want %v", err, evidence.ErrAltered)
			}
		})
	}
}

func TestSign_WaitsForTheHourOrAThousandRecords(t *testing.T) {
	b := newBook(t)
	b.act(t, 10)
	b.extend(t)
	sign := func(want bool) {
		t.Helper()
		c, err := b.Sign(t.Context(), b.tenant, 1000, time.Hour)
		if err != nil || (c != nil) != want {
			t.Errorf("signed %+v, %v; want %t", c, err, want)
		}
	}
	sign(false)
	b.sql(t, `update evidence_heads set signed_at = now() - interval '61 minutes'`)
	if err := b.ExtendAll(t.Context()); err != nil { // finds the chain although it has no new records
		t.Fatal(err)
	}
	sign(false) // signed by ExtendAll
	if all, err := b.Checkpoints(t.Context(), b.tenant, 0, 10); err != nil || len(all) != 1 {
		t.Errorf("%d checkpoints, %v; want 1", len(all), err)
	}
	b.act(t, 1000)
	b.extend(t) // signs, too
	sign(false)
	if all, err := b.Checkpoints(t.Context(), b.tenant, 0, 10); err != nil || len(all) != 2 {
		t.Errorf("%d checkpoints, %v; want 2", len(all), err)
	}
}

// TestChain_RefusesAnErasureThatLeaverDidNotMake has an administrator of the database who empties a record, and writes that
// leaver erased it.
func TestChain_RefusesAnErasureThatLeaverDidNotMake(t *testing.T) {
	b := newBook(t)
	b.act(t, 3)
	b.extend(t)
	b.sql(t, `set leaver.erasing = 'on'`)
	b.sql(t, `update evidence_chain set texts = null, salt = null where sequence = 3`)
	if got := b.verify(t).Faults; len(got) != 1 || !strings.Contains(got[0], "record 3 lacks its texts") {
		t.Errorf("without a record of an erasure, the faults are %q", got)
	}
	b.sql(t, `insert into erasures (tenant_id, id, actor, reason, records, seal)
		select $1, gen_random_uuid(), 'approver-token/1', 'GDPR', '[[3, 3]]', sealed from evidence_heads where tenant_id = $1`,
		b.tenant)
	if err := b.Extend(t.Context(), b.tenant); !errors.Is(err, evidence.ErrAltered) {
		t.Errorf("the forged erasure was chained: %v", err)
	}
}

func TestChain_IsInvisibleToOtherTenants(t *testing.T) {
	b := newBook(t)
	b.extend(t)
	for _, other := range []uuid.UUID{uuid.New(), uuid.Nil} {
		err := b.db.InTenant(t.Context(), other, func(tx pgx.Tx) error {
			var n int
			err := tx.QueryRow(t.Context(), `
				select (select count(*) from evidence_chain where tenant_id = $1) + (select count(*) from evidence_pending where tenant_id = $1)
				  + (select count(*) from evidence_heads where tenant_id = $1)`, b.tenant).Scan(&n)
			if n != 0 {
				t.Errorf("%s sees %d rows of the tenant", other, n)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	err := b.db.InTenant(t.Context(), b.tenant, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `insert into evidence_pending (tenant_id, source, record) values ($1, 'acts', '{}')`, b.tenant)
		return err
	})
	if err == nil {
		t.Error("the application queues a record that is in no table")
	}
}
