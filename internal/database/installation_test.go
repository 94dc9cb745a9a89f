package database_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// TestMigrate_IsolatesInstallations checks that the role of one installation cannot connect to
// the database of another one in the same cluster.
func TestMigrate_IsolatesInstallations(t *testing.T) {
	type installation struct{ owner, app, role string }
	var two [2]installation
	for n := range two {
		i := &two[n]
		i.owner, i.role = stacktest.NewDownstream(t), "app_"+strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
		u, err := url.Parse(i.owner)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("user", i.role)
		q.Set("password", "secret-"+i.role)
		u.RawQuery, u.User = q.Encode(), nil
		i.app = u.String()
		for range 2 { // the second run must succeed too
			if _, err := database.Migrate(t.Context(), i.owner); err != nil {
				t.Fatal(err)
			}
			if _, err := database.EnsureAppRole(t.Context(), i.owner, i.app); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() {
			conn, err := pgx.Connect(context.Background(), i.owner)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.Background()) }()
			var group string
			_ = conn.QueryRow(context.Background(), `select 'leaver_app_' || current_database()`).Scan(&group)
			for _, sql := range []string{
				"drop owned by " + i.role, "drop owned by " + group, "drop role " + i.role, "drop role " + group,
			} {
				if _, err := conn.Exec(context.Background(), sql); err != nil {
					t.Errorf("%s: %v", sql, err)
				}
			}
		})
	}
	for n, i := range two {
		db, err := database.Open(t.Context(), i.app)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.InNoTenant(t.Context(), func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `select count(*) from tenants`)
			return err
		}); err != nil {
			t.Errorf("query in the role's own database: %v", err)
		}
		db.Close()
		other, err := url.Parse(i.app)
		if err != nil {
			t.Fatal(err)
		}
		foreign, _ := url.Parse(two[1-n].app)
		other.Path = foreign.Path
		conn, err := pgx.Connect(t.Context(), other.String())
		if err == nil {
			_ = conn.Close(t.Context())
			t.Error("the role of one installation connected to the other's database")
		} else if !strings.Contains(err.Error(), "42501") {
			t.Errorf("got %v, want SQLSTATE 42501", err)
		}
	}
}
