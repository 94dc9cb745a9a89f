package database_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

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

// TestMigrate_RenamesWhatIsStored upgrades a database of migration 3, with rows and a trigger, whose
// names migration 4 changes.
func TestMigrate_RenamesWhatIsStored(t *testing.T) {
	url := stacktest.NewDownstream(t)
	conn := connect(t, url)
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec(`do $$ begin create role leaver_app nologin; exception when duplicate_object then null; end $$`)
	db := stdlib.OpenDB(*conn.Config())
	defer db.Close()
	migrations, err := fs.Sub(database.Schema(), "migrations")
	if err != nil {
		t.Fatal(err)
	}
	old, err := goose.NewProvider(goose.DialectPostgres, db, migrations)
	if err == nil {
		_, err = old.UpTo(t.Context(), 3)
	}
	if err != nil {
		t.Fatal(err)
	}
	exec(`
		insert into tenants (id, name, profile, brake_leavers) values ('00000000-0000-4000-8000-000000000001', 'acme', 'default', 7);
		insert into resources (tenant_id, id, type, document, created_at, modified_at)
		values ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002', 'User', '{}', now(), now());
		insert into inventory (tenant_id, id, principal_id, kind, connector, reference, issued_at, state)
		values ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000003',
			'00000000-0000-4000-8000-000000000002', 'api_key', 'crm', 'key-1', now(), 'survivor');
		insert into inventory_states (tenant_id, item_id, state, reason)
		values ('00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000003', 'survivor', 'refused');
		insert into brakes (tenant_id, id, leavers) values ('00000000-0000-4000-8000-000000000001', gen_random_uuid(), 9);
		create function append_only() returns trigger language plpgsql as $$ begin raise 'append-only'; end $$;
		create trigger inventory_states_append_only before update on inventory_states
			for each statement execute function append_only()`)
	if n, err := database.Migrate(t.Context(), url); n < 1 || err != nil {
		t.Fatalf("applied %d migrations, %v; want the later ones", n, err)
	}
	for query, want := range map[string]string{
		`select string_agg(state, ' ') from (select state from credentials union all select state from credential_states) s`: "failed failed",
		`select threshold_leavers::text from tenants`:                                                                 "7",
		`select count(*)::text from holds where approved_at is null`:                                                  "1",
		`select count(*)::text from pg_class where relname ~ '^(inventory|brakes|unbound|assurance|comput)'`:          "0",
		`select count(*)::text from pg_constraint where conname ~ '^(inventory|brakes|unbound|assurance|comput)'`:     "0",
		`select count(*)::text from pg_trigger where tgname ~ '^inventory'`:                                           "0",
		`select count(*)::text from pg_trigger where tgname ~ '^credential_(registered|changed|states_append_only)$'`: "3",
	} {
		var got string
		if err := conn.QueryRow(t.Context(), query).Scan(&got); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", query, got, err, want)
		}
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
