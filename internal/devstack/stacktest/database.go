package stacktest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// appRole is the application's login role, which is subject to row-level security.
const appRole = "leaver_test"

// Database is a migrated database for one test.
type Database struct {
	OwnerURL string // as the superuser
	AppURL   string // as the application's role
}

// NewDatabase creates a database from the migrated template. It is dropped when
// the test ends. A benchmark's database is durable, as an installation's is.
func NewDatabase(t testing.TB) Database {
	t.Helper()
	if b, ok := t.(*testing.B); ok {
		makeDurable(b)
	}
	template, err := migratedTemplate()
	if err != nil {
		t.Fatalf("create the template database: %v", err)
	}
	name := "t_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	admin(t, fmt.Sprintf("create database %s template %s", name, template))
	t.Cleanup(func() { admin(t, fmt.Sprintf("drop database if exists %s with (force)", name)) })
	return Database{OwnerURL: withDatabase(name, ""), AppURL: withDatabase(name, appRole)}
}

// NewDownstream creates an empty database that serves as a downstream, and drops it when the test
// ends.
func NewDownstream(t testing.TB) (ownerURL string) {
	t.Helper()
	name := "d_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	admin(t, "create database "+name)
	t.Cleanup(func() { admin(t, fmt.Sprintf("drop database if exists %s with (force)", name)) })
	return withDatabase(name, "")
}

// Open creates a database and opens the application's pool on it. Settings, such as
// "lock_timeout=1s", are added to the URL.
func Open(t testing.TB, settings ...string) (*database.DB, Database) {
	t.Helper()
	d := NewDatabase(t)
	for _, s := range settings {
		d.AppURL += "&" + s
	}
	db, err := database.Open(t.Context(), d.AppURL)
	if err != nil {
		t.Fatalf("open the database: %v", err)
	}
	t.Cleanup(db.Close)
	return db, d
}

// makeDurable enables the cluster's fsync, synchronous_commit and full_page_writes until the
// benchmark ends. No other test may run at the same time.
func makeDurable(b *testing.B) {
	b.Helper()
	settings := []string{"fsync", "synchronous_commit", "full_page_writes"}
	for _, name := range settings {
		admin(b, "alter system set "+name+" = on")
	}
	admin(b, "select pg_reload_conf()")
	b.Cleanup(func() {
		for _, name := range settings {
			admin(b, "alter system reset "+name)
		}
		admin(b, "select pg_reload_conf()")
	})
	for _, name := range settings {
		Eventually(b, 10*time.Second, name, func() bool { return show(b, name) == "on" })
	}
}

func show(b *testing.B, name string) (value string) {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), shared.DatabaseURL)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if err := conn.QueryRow(b.Context(), "show "+name).Scan(&value); err != nil {
		b.Fatal(err)
	}
	return value
}

func admin(t testing.TB, sql string) {
	t.Helper()
	ctx := context.Background() // cleanups outlive the test's context
	conn, err := pgx.Connect(ctx, shared.DatabaseURL)
	if err != nil {
		t.Fatalf("connect as the superuser: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// migratedTemplate returns the name of the database that tests copy, and creates
// it once for each state of the migrations. A copy takes 20 ms, less than the
// migrations.
var migratedTemplate = sync.OnceValues(func() (string, error) {
	ctx := context.Background()
	sum := sha256.New()
	err := fs.WalkDir(database.Schema(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(database.Schema(), path)
		sum.Write(raw)
		return err
	})
	if err != nil {
		return "", err
	}
	name := "template_" + hex.EncodeToString(sum.Sum(nil))[:16]
	conn, err := pgx.Connect(ctx, shared.DatabaseURL)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	// Other packages' test binaries may create the template at the same time.
	if _, err := conn.Exec(ctx, `select pg_advisory_lock(7265)`); err != nil {
		return "", err
	}
	var exists bool
	err = conn.QueryRow(ctx, `select exists (select 1 from pg_database where datname = $1)`, name).Scan(&exists)
	if err != nil || exists {
		return name, err
	}
	building := name + "_building"
	if _, err := conn.Exec(ctx, "drop database if exists "+building+" with (force)"); err != nil {
		return "", err
	}
	if _, err := conn.Exec(ctx, "create database "+building); err != nil {
		return "", err
	}
	if _, err := database.Migrate(ctx, withDatabase(building, "")); err != nil {
		return "", err
	}
	if _, err := database.EnsureAppRole(ctx, withDatabase(building, ""), withDatabase(building, appRole)); err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, "alter database "+building+" rename to "+name)
	return name, err
})

// withDatabase returns the shared server's URL with another database and, unless it is empty,
// another user.
func withDatabase(name, user string) string {
	u, err := url.Parse(shared.DatabaseURL)
	if err != nil {
		panic(err) // the supervisor connected with it
	}
	u.Path = "/" + name
	if user != "" {
		q := u.Query()
		q.Set("user", user)
		u.RawQuery = q.Encode()
		u.User = nil
	}
	return u.String()
}
