package database_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// TestCheckOwner_ReturnsMissingGrants checks that the statements in the error can be run as they
// are.
func TestCheckOwner_ReturnsMissingGrants(t *testing.T) {
	super := stacktest.NewDownstream(t)
	conn := connect(t, super)
	role := "poor_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	if _, err := conn.Exec(t.Context(), "create role "+role+" login password 'poor'"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { drop(t, super, role) })
	poor := as(t, super, role, "poor")
	err := database.CheckOwner(t.Context(), poor)
	if !errors.Is(err, database.ErrMisconfigured) {
		t.Fatalf("got %v, want ErrMisconfigured", err)
	}
	_, statements, ok := strings.Cut(err.Error(), "in this database: ")
	if !ok || strings.Count(statements, ";") != 3 {
		t.Fatalf("got %v, want three statements", err)
	}
	if _, err := conn.Exec(t.Context(), statements); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
	if err := database.CheckOwner(t.Context(), poor); err != nil {
		t.Errorf("CheckOwner after the statements: %v", err)
	}
}

// TestEnsureAppRole_RejectsWrongPasswordOfExistingRole checks that an existing role keeps its
// password.
func TestEnsureAppRole_RejectsWrongPasswordOfExistingRole(t *testing.T) {
	super := stacktest.NewDownstream(t)
	if _, err := database.Migrate(t.Context(), super); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, super)
	role := "app_" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12]
	var group string
	if err := conn.QueryRow(t.Context(), `select 'leaver_app_' || current_database()`).Scan(&group); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { drop(t, super, role, group) })
	if done, err := database.EnsureAppRole(t.Context(), super, as(t, super, role, "first")); err != nil ||
		!strings.Contains(done, "is created") {
		t.Fatalf("got %q (%v), want that the role is created", done, err)
	}
	if done, err := database.EnsureAppRole(t.Context(), super, as(t, super, role, "first")); err != nil ||
		!strings.Contains(done, "exists") {
		t.Errorf("got %q (%v), want that the role exists", done, err)
	}
	_, err := database.EnsureAppRole(t.Context(), super, as(t, super, role, "second"))
	if !errors.Is(err, database.ErrMisconfigured) || !strings.Contains(err.Error(), "another password") {
		t.Errorf("got %v, want that the role has another password", err)
	}
	db, err := database.Open(t.Context(), as(t, super, role, "second"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.CheckSchema(t.Context()); !errors.Is(err, database.ErrMisconfigured) ||
		!strings.Contains(err.Error(), "SQLSTATE 28P01") {
		t.Errorf("got %v, want SQLSTATE 28P01", err)
	}
}

// as returns a database URL for another role.
func as(t *testing.T, address, role, password string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("user", role)
	q.Set("password", password)
	u.RawQuery, u.User = q.Encode(), nil
	return u.String()
}

// drop drops roles and the objects that they own in the database.
func drop(t *testing.T, address string, roles ...string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, role := range roles {
		for _, sql := range []string{
			"reassign owned by " + role + " to current_user", "drop owned by " + role, "drop role " + role,
		} {
			if _, err := conn.Exec(context.Background(), sql); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
}
