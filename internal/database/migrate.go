package database

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/leaverhq/leaver/internal/scram"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the embedded migration files, at the root of the returned tree.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the embedded folder is part of the binary
	}
	return sub
}

// Migrate applies all pending migrations as the schema's owner, under an
// advisory lock, and returns how many it applied.
func Migrate(ctx context.Context, ownerURL string) (int, error) {
	cfg, err := pgx.ParseConfig(ownerURL)
	if err != nil {
		return 0, fmt.Errorf("database URL: %w", err)
	}
	db := stdlib.OpenDB(*cfg)
	defer func() { _ = db.Close() }()
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return 0, fmt.Errorf("advisory lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, Migrations(), goose.WithSessionLocker(locker))
	if err != nil {
		return 0, fmt.Errorf("read migrations: %w", err)
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return len(results), fmt.Errorf("migrate: %w", err)
	}
	return len(results), nil
}

// EnsureAppRole lets the role that appURL names log in and makes it a member
// of leaver_app, creating it where it does not exist. A password in appURL is
// set as a SCRAM-SHA-256 verifier, so that no server log carries it.
func EnsureAppRole(ctx context.Context, ownerURL, appURL string) error {
	app, err := pgx.ParseConfig(appURL)
	if err != nil {
		return fmt.Errorf("database URL: %w", err)
	}
	conn, err := pgx.Connect(ctx, ownerURL)
	if err != nil {
		return fmt.Errorf("connect as the owner: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()

	var exists, unbound bool
	err = conn.QueryRow(ctx, `select true, rolsuper or rolbypassrls from pg_roles where rolname = $1`, app.User).Scan(&exists, &unbound)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("look up role %s: %w", app.User, err)
	}
	if unbound {
		return fmt.Errorf("role %s bypasses row-level security: name another role in the application's database URL", app.User)
	}
	role := pgx.Identifier{app.User}.Sanitize()
	if !exists {
		if _, err := conn.Exec(ctx, "create role "+role+" login"); err != nil && !isDuplicateRole(err) {
			return fmt.Errorf("create role %s: %w", app.User, err)
		}
		if app.Password != "" {
			verifier, err := scram.NewVerifier(app.Password)
			if err != nil {
				return err
			}
			if _, err := conn.Exec(ctx, "alter role "+role+" password '"+verifier+"'"); err != nil {
				return fmt.Errorf("set the password of role %s: %w", app.User, err)
			}
		}
	}
	if _, err := conn.Exec(ctx, "grant leaver_app to "+role); err != nil {
		return fmt.Errorf("make role %s a member of leaver_app: %w", app.User, err)
	}
	return nil
}

func isDuplicateRole(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && (pgErr.Code == "42710" || pgErr.Code == "23505")
}
