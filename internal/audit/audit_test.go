package audit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// newTenant stores a tenant without an act.
func newTenant(t *testing.T, db *database.DB) uuid.UUID {
	t.Helper()
	id := uuid.New()
	if err := database.Exec(t.Context(), db, uuid.Nil, `insert into tenants (id, name) values ($1, $2)`,
		id, "t-"+id.String()[:8]); err != nil {
		t.Fatal(err)
	}
	return id
}

func record(ctx context.Context, t *testing.T, db *database.DB, tenant uuid.UUID, object string) {
	t.Helper()
	if err := db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		return audit.Record(ctx, tx, tenant, audit.TokenIssue, object, nil, map[string]string{"class": "scim"})
	}); err != nil {
		t.Fatal(err)
	}
}

func TestActs_NameTheirActorAndPage(t *testing.T) {
	db, _ := stacktest.Open(t)
	mine, other := newTenant(t, db), newTenant(t, db)
	for n := range 3 {
		record(audit.WithActor(t.Context(), "operator-token/1"), t, db, mine, fmt.Sprint(n))
	}
	record(t.Context(), t, db, other, "x")
	record(t.Context(), t, db, uuid.Nil, "installation")
	s := audit.NewStore(db)
	first, err := s.List(t.Context(), mine, 0, 2)
	if err != nil || len(first) != 2 || first[0].Object != "0" || first[0].Actor != "operator-token/1" ||
		first[0].Before != nil || string(first[0].After) != `{"class": "scim"}` {
		t.Fatalf("the first page is %+v, %v", first, err)
	}
	rest, err := s.List(t.Context(), mine, first[1].ID, 2)
	if err != nil || len(rest) != 1 || rest[0].Object != "2" {
		t.Errorf("the second page is %+v, %v; want the third act", rest, err)
	}
	own, err := s.List(t.Context(), uuid.Nil, 0, 10)
	if err != nil || len(own) != 1 || own[0].Actor != "database" {
		t.Errorf("the acts on the installation are %+v, %v; want one by the database", own, err)
	}
}

func TestActs_AreAppendOnly(t *testing.T) {
	db, at := stacktest.Open(t)
	tenant := newTenant(t, db)
	record(t.Context(), t, db, tenant, "x")
	conn, err := pgx.Connect(t.Context(), at.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, statement := range []string{`update admin_acts set actor = 'nobody'`, `delete from admin_acts`, `truncate admin_acts`} {
		if _, err := conn.Exec(t.Context(), statement); err == nil {
			t.Errorf("%s was permitted", statement)
		}
	}
}

func TestRecord_FailsWithItsTransaction(t *testing.T) {
	db, _ := stacktest.Open(t)
	tenant, undone := newTenant(t, db), errors.New("undone")
	err := db.InTenant(t.Context(), tenant, func(tx pgx.Tx) error {
		if err := audit.Record(t.Context(), tx, tenant, audit.TokenRevoke, "x", nil, nil); err != nil {
			return err
		}
		return undone
	})
	if !errors.Is(err, undone) {
		t.Fatal(err)
	}
	if acts, err := audit.NewStore(db).List(t.Context(), tenant, 0, 10); err != nil || len(acts) != 0 {
		t.Errorf("the acts are %+v, %v; want none", acts, err)
	}
}
