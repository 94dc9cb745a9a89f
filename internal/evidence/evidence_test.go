package evidence_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/tenant"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// Evidence holds fixed texts and ids, and no secret.
func ExampleEncode() {
	encoded, err := evidence.Encode([]evidence.Record{{
		WorkflowID: "leaver/acme/ada/7", ActivityID: "revoke:key-1", Attempt: 1, Step: "probe-after", Outcome: "dead",
		Detail: "introspection: inactive", At: time.Date(2026, 11, 27, 22, 0, 0, 0, time.UTC),
	}})
	fmt.Println(strings.Contains(string(encoded), `"step":"probe-after","outcome":"dead"`), err)
	// Output: true <nil>
}

func TestEncode_TruncatesDetailsBetweenCharacters(t *testing.T) {
	encoded, err := evidence.Encode([]evidence.Record{{Detail: strings.Repeat("é", 400)}})
	if err != nil {
		t.Fatal(err)
	}
	if !utf8.Valid(encoded) || strings.Count(string(encoded), "é") != 250 {
		t.Errorf("%d characters are left, want 250 whole ones", strings.Count(string(encoded), "é"))
	}
}

// world is a tenant with one registered credential.
type world struct {
	store        *evidence.Store
	tenant, item uuid.UUID
	event        uuid.UUID
}

func newWorld(t *testing.T) world {
	t.Helper()
	db, at := stacktest.Open(t)
	of, err := tenant.NewStore(db).Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	w := world{evidence.NewStore(db), of.ID, uuid.New(), uuid.New()}
	owner, err := pgx.Connect(t.Context(), at.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(t.Context())
	user := uuid.New()
	for _, row := range []struct {
		sql  string
		args []any
	}{
		{`insert into resources (tenant_id, id, type, document, created_at, modified_at)
			values ($1, $2, 'User', '{}', now(), now())`, []any{of.ID, user}},
		{`insert into credentials (tenant_id, id, principal_id, kind, connector, reference, issued_at)
			values ($1, $2, $3, 'api_key', 'crm', 'key-1', now())`, []any{of.ID, w.item, user}},
	} {
		if _, err := owner.Exec(t.Context(), row.sql, row.args...); err != nil {
			t.Fatalf("%s: %v", row.sql, err)
		}
	}
	return w
}

func (w world) append(t *testing.T, step, outcome string) {
	t.Helper()
	err := w.store.Append(t.Context(), w.tenant, evidence.Record{
		Item: w.item, Event: w.event, WorkflowID: "w", RunID: "r", ActivityID: "a", Attempt: 1, Step: step, Outcome: outcome,
		At: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestStore_ByEventPagesInTheOrderOfWriting(t *testing.T) {
	w := newWorld(t)
	for _, step := range []string{"probe-before", "revoke", "probe-after"} {
		w.append(t, step, "done")
	}
	first, last, err := w.store.ByEvent(t.Context(), w.tenant, w.event, 0, 2)
	if err != nil || len(first) != 2 || first[0].Step != "probe-before" || first[1].Step != "revoke" {
		t.Fatalf("the first page is %+v, %v", first, err)
	}
	rest, _, err := w.store.ByEvent(t.Context(), w.tenant, w.event, last, 2)
	if err != nil || len(rest) != 1 || rest[0].Step != "probe-after" {
		t.Errorf("the second page is %+v, %v", rest, err)
	}
	if other, _, err := w.store.ByEvent(t.Context(), uuid.New(), w.event, 0, 10); err != nil || len(other) != 0 {
		t.Errorf("another tenant reads %+v, %v", other, err)
	}
}

// TestStore_PositiveControlIsAProbeBeforeTheEnd checks what *verified* relies on (I6).
func TestStore_PositiveControlIsAProbeBeforeTheEnd(t *testing.T) {
	w := newWorld(t)
	want := func(saw, acted bool) {
		t.Helper()
		gotSaw, err := w.store.SawAlive(t.Context(), w.tenant, w.item, w.event, false)
		gotActed, err2 := w.store.Acted(t.Context(), w.tenant, w.item, w.event)
		if err != nil || err2 != nil || gotSaw != saw || gotActed != acted {
			t.Errorf("saw alive %t, acted %t (%v, %v); want %t, %t", gotSaw, gotActed, err, err2, saw, acted)
		}
	}
	want(false, false)
	w.append(t, "probe-before", "unknown")
	want(false, false)
	w.append(t, "probe-before", "alive")
	want(true, false)
	w.append(t, "revoke", "done")
	want(true, true)
	w.append(t, "probe-after", "unknown")
	w.append(t, "probe-after", "alive")
	probes, err := w.store.ProbesAfter(t.Context(), w.tenant, w.item, w.event)
	if err != nil || probes != (evidence.Probes{Failed: 1, Alive: true}) {
		t.Errorf("the probes after the end are %+v, %v", probes, err)
	}
}
