package database

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/leaverhq/leaver/activities/connectors/postgres/scram"
)

//go:embed migrations/*.sql functions.sql
var schema embed.FS

// Schema returns the embedded files of the schema: the migrations in their folder, and
// functions.sql.
func Schema() fs.FS { return schema }

// ErrForeignSchema is returned if the schema is newer than this binary, or of a development
// version before the first release.
var ErrForeignSchema = errors.New("unsupported schema version")

// Migrate applies all pending migrations as the schema's owner, under an advisory lock,
// and then the functions and triggers. It returns how many migrations it applied.
// Error: [ErrForeignSchema].
func Migrate(ctx context.Context, ownerURL string) (int, error) {
	cfg, err := pgx.ParseConfig(ownerURL)
	if err != nil {
		return 0, fmt.Errorf("database URL: %w", err)
	}
	db := stdlib.OpenDB(*cfg)
	defer func() { _ = db.Close() }()
	role, err := groupRole(ctx, db)
	if err != nil {
		return 0, err
	}
	files := forRole{schema, role}
	applied, err := migrate(ctx, db, files)
	if err != nil {
		return applied, fmt.Errorf("migrate: %w", err)
	}
	if err := applyFunctions(ctx, db, files); err != nil {
		return applied, fmt.Errorf("migrate: %w", err)
	}
	return applied, nil
}

func migrate(ctx context.Context, db *sql.DB, files fs.FS) (int, error) {
	migrations, err := fs.Sub(files, "migrations")
	if err != nil {
		return 0, err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return 0, fmt.Errorf("advisory lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations, goose.WithSessionLocker(locker))
	if err != nil {
		return 0, fmt.Errorf("read migrations: %w", err)
	}
	current, known, err := provider.GetVersions(ctx)
	if err != nil {
		return 0, err
	}
	if current > known {
		return 0, fmt.Errorf("%w: the database has %d, this binary supports up to %d: "+
			"create a new database, or use the version that created it", ErrForeignSchema, current, known)
	}
	results, err := provider.Up(ctx)
	return len(results), err
}

// applyFunctions creates or replaces the functions and triggers, in one transaction.
func applyFunctions(ctx context.Context, db *sql.DB, files fs.FS) error {
	functions, err := fs.ReadFile(files, "functions.sql")
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	// Concurrent migrations would update the same rows of the catalog.
	if _, err := tx.ExecContext(ctx, `select pg_advisory_xact_lock(hashtext('leaver functions'))`); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, string(functions)); err != nil {
		return fmt.Errorf("functions.sql: %w", err)
	}
	return tx.Commit()
}

// groupRoleSQL selects the role that the tables of a migrated database are granted to.
const groupRoleSQL = `
	select a.grantee::regrole::text from pg_class c, aclexplode(c.relacl) a
	 where c.oid = to_regclass('public.tenants') and a.grantee <> c.relowner and a.grantee <> 0
	   and a.privilege_type = 'SELECT' limit 1`

// groupRole returns the role that this installation's tables are granted to. Roles belong to
// the cluster, so each database has its own role: installations cannot read each other's
// tables.
func groupRole(ctx context.Context, db *sql.DB) (quoted string, err error) {
	err = db.QueryRowContext(ctx, groupRoleSQL).Scan(&quoted)
	if err == nil || !errors.Is(err, sql.ErrNoRows) {
		return quoted, err
	}
	var name string
	if err := db.QueryRowContext(ctx, `select left('leaver_app_' || current_database(), 63)`).Scan(&name); err != nil {
		return "", fmt.Errorf("read the name of the database: %w", err)
	}
	return pgx.Identifier{name}.Sanitize(), nil
}

// forRole is a file system of SQL files in which the role of the installation replaces the
// placeholder leaver_app.
type forRole struct {
	fs.FS
	role string
}

// Open implements fs.FS.
func (f forRole) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return file, err
	}
	defer func() { _ = file.Close() }()
	raw, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	return &migrationFile{strings.NewReader(strings.ReplaceAll(string(raw), "leaver_app", f.role)), info}, err
}

// migrationFile is a migration in memory.
type migrationFile struct {
	*strings.Reader
	info fs.FileInfo
}

// Stat implements fs.File.
func (m *migrationFile) Stat() (fs.FileInfo, error) { return m.info, nil }

// Close implements fs.File.
func (m *migrationFile) Close() error { return nil }

// EnsureAppRole makes the role of appURL a member of the installation's role, and creates it as
// a login role if it does not exist. It revokes the right of other roles of the cluster to
// connect. The password of a new role is set as a SCRAM-SHA-256 verifier, so that it appears in
// no server log; the password of an existing role is not changed. It returns a description of
// what it did.
func EnsureAppRole(ctx context.Context, ownerURL, appURL string) (done string, err error) {
	app, err := pgx.ParseConfig(appURL)
	if err != nil {
		return "", fmt.Errorf("database URL: %w", err)
	}
	conn, err := pgx.Connect(ctx, ownerURL)
	if err != nil {
		return "", fmt.Errorf("connect as the owner: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()

	var exists, bypasses bool
	err = conn.QueryRow(ctx, `select true, rolsuper or rolbypassrls from pg_roles where rolname = $1`,
		app.User).Scan(&exists, &bypasses)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("look up role %s: %w", app.User, err)
	}
	if bypasses {
		return "", fmt.Errorf("role %s bypasses row-level security: name another role in database.url", app.User)
	}
	done = "role " + app.User + " exists and is granted"
	if !exists {
		if err := createLogin(ctx, conn, app); err != nil {
			return "", err
		}
		done = "role " + app.User + " is created and granted"
	}
	if err := grantApp(ctx, conn, app.User); err != nil {
		return "", err
	}
	if !exists {
		return done, nil
	}
	login, err := pgx.ConnectConfig(ctx, app)
	var pgErr *pgconn.PgError
	switch {
	case errors.As(err, &pgErr) && pgErr.Code == "28P01":
		return "", fmt.Errorf("%w: role %[2]s exists with another password than database.url has, and is not changed: "+
			`run \password %[2]s in psql, or correct database.url`, ErrMisconfigured, app.User)
	case err == nil:
		_ = login.Close(context.WithoutCancel(ctx))
	} // ignore other errors: only the application may be able to reach the host
	return done, nil
}

func createLogin(ctx context.Context, conn *pgx.Conn, app *pgx.ConnConfig) error {
	role := pgx.Identifier{app.User}.Sanitize()
	if _, err := conn.Exec(ctx, "create role "+role+" login"); err != nil && !isDuplicateRole(err) {
		return fmt.Errorf("create role %s: %w", app.User, err)
	}
	if app.Password == "" {
		return nil
	}
	verifier, err := scram.NewVerifier(app.Password)
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "alter role "+role+" password '"+verifier+"'"); err != nil {
		return fmt.Errorf("set the password of role %s: %w", app.User, err)
	}
	return nil
}

// grantApp makes a login role a member of the installation's role, and revokes the right of
// other roles to connect.
func grantApp(ctx context.Context, conn *pgx.Conn, user string) error {
	role := pgx.Identifier{user}.Sanitize()
	var group, name string
	if err := conn.QueryRow(ctx, groupRoleSQL).Scan(&group); err != nil {
		return fmt.Errorf("look up the role that the tables are granted to: %w", err)
	}
	if err := conn.QueryRow(ctx, `select quote_ident(current_database())`).Scan(&name); err != nil {
		return fmt.Errorf("look up the database: %w", err)
	}
	for _, statement := range []string{
		"grant " + group + " to " + role,
		"revoke connect on database " + name + " from public",
		"grant connect on database " + name + " to " + group,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("grant role %s exclusive access to the database (%s): %w", user, statement, err)
		}
	}
	return nil
}

// CheckOwner returns an error if the role of `leaver migrate` lacks rights, with the statements
// that grant them. Error: [ErrMisconfigured].
func CheckOwner(ctx context.Context, ownerURL string) error {
	conn, err := pgx.Connect(ctx, ownerURL)
	if err != nil {
		return fmt.Errorf("connect as the owner (database.migrate_url): %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var missing []string
	err = conn.QueryRow(ctx, `
		with me as (select quote_ident(current_user) name, quote_ident(current_database()) database, rolsuper,
		  rolcreaterole from pg_roles where rolname = current_user)
		select array_remove(array[
		  case when not rolsuper and not rolcreaterole then 'alter role ' || name || ' createrole;' end,
		  case when not pg_has_role(current_user, (select datdba from pg_database
		    where datname = current_database()), 'MEMBER')
		       then 'alter database ' || database || ' owner to ' || name || ';' end,
		  case when not has_schema_privilege('public', 'CREATE') then 'grant create on schema public to ' || name || ';' end,
		  case when exists (select 1 from pg_class where oid = to_regclass('public.tenants')
		    and not pg_has_role(current_user, relowner, 'MEMBER'))
		       then 'grant ' || (select quote_ident(pg_get_userbyid(relowner)) from pg_class
		         where oid = to_regclass('public.tenants')) || ' to ' || name || ';' end
		], null) from me`).Scan(&missing)
	if err != nil {
		return fmt.Errorf("look up the rights of the owner: %w", err)
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: the role in database.migrate_url lacks rights: run as a superuser in this database: %s",
			ErrMisconfigured, strings.Join(missing, " "))
	}
	return nil
}

func isDuplicateRole(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && (pgErr.Code == "42710" || pgErr.Code == "23505")
}
