package database_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// TestMigrationsGoDownAndUpAgain with what a tenant has stored: what `schemas`
// said before it is derived, and after.
func TestMigrationsGoDownAndUpAgain(t *testing.T) {
	d := stacktest.NewDatabase(t)
	cfg, err := pgx.ParseConfig(d.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	db := stdlib.OpenDB(*cfg)
	t.Cleanup(func() { _ = db.Close() })
	const extension = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
	for _, sql := range []string{
		`insert into tenants (id, name) values ('4a3ec2c4-a334-4ead-a709-306d3154f984', 'acme')`,
		`insert into resources (tenant_id, id, type, unique_name, document, extensions, created_at, modified_at)
		 select id, id, 'User', 'ada', '{"userName": "ada"}', array['` + extension + `'], now(), now() from tenants`,
	} {
		if _, err := db.ExecContext(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	provider, err := database.Migrator(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.DownTo(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	var before string
	if err := db.QueryRowContext(t.Context(), `select document -> 'schemas' from resources`).Scan(&before); err != nil || before != `["urn:ietf:params:scim:schemas:core:2.0:User", "`+extension+`"]` {
		t.Errorf("schemas before: %s (%v)", before, err)
	}
	if _, err := provider.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	var after bool
	if err := db.QueryRowContext(t.Context(), `select document = '{"userName": "ada"}' and extensions = array['`+extension+`'] and plain from resources`).Scan(&after); err != nil || !after {
		t.Errorf("the resource is another after down and up (%v)", err)
	}
	if _, err := provider.DownTo(t.Context(), 0); err != nil {
		t.Errorf("down to nothing: %v", err)
	}
}
