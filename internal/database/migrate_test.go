package database_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

func TestMigrate_ReplacesChangedFunctions(t *testing.T) {
	d := stacktest.NewDatabase(t)
	conn := connect(t, d.OwnerURL)
	const probe = `select parents_above(gen_random_uuid(), gen_random_uuid(), null)`
	var before, after int
	if err := conn.QueryRow(t.Context(), probe).Scan(&before); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `create or replace function parents_above(tenant uuid, agent uuid,
		parent uuid) returns int language sql as 'select 7'`); err != nil {
		t.Fatal(err)
	}
	if n, err := database.Migrate(t.Context(), d.OwnerURL); n != 0 || err != nil {
		t.Fatalf("applied %d migrations (%v), want none", n, err)
	}
	if err := conn.QueryRow(t.Context(), probe).Scan(&after); err != nil || after != before {
		t.Errorf("the function returns %d (%v) after a migration, want %d", after, err, before)
	}
}

func TestMigrate_RefusesForeignSchema(t *testing.T) {
	d := stacktest.NewDatabase(t)
	if _, err := connect(t, d.OwnerURL).Exec(t.Context(),
		`insert into goose_db_version (version_id, is_applied) values (1000, true)`); err != nil {
		t.Fatal(err)
	}
	if _, err := database.Migrate(t.Context(), d.OwnerURL); !errors.Is(err, database.ErrForeignSchema) {
		t.Errorf("got %v, want ErrForeignSchema", err)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}
