// Package database opens PostgreSQL for the application: a pool whose every
// transaction names its tenant, and the migrations that make the schema.
package database

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leaverhq/leaver/internal/coalesce"
)

// statementTimeout keeps one dear query, such as a filter of many conditions,
// from holding a connection that others wait for.
const statementTimeout = "15s"

// idleTransactionTimeout bounds how long a transaction may wait for its client.
const idleTransactionTimeout = "10s"

// ErrTooDear says that a statement took longer than one may.
var ErrTooDear = errors.New("the statement took too long")

// ErrUnavailable marks errors that say PostgreSQL cannot be reached or cannot
// answer now; the same request may succeed later.
var ErrUnavailable = errors.New("PostgreSQL is not available")

// DB is a connection pool of the application's role, which row-level security binds.
type DB struct {
	pool   *pgxpool.Pool
	quotas *quotas
	shared *coalesce.Group[lane, Statement]
}

// Open prepares a pool for url. It succeeds while PostgreSQL is down (requests
// then fail with [ErrUnavailable]), and refuses a role that would not be bound
// by row-level security on the first connection.
func Open(ctx context.Context, url string) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("database URL: %w", err)
	}
	cfg.AfterConnect = refuseUnboundRole
	if !strings.Contains(url, "pool_max_conns") {
		cfg.MaxConns = max(cfg.MaxConns, defaultConns)
	}
	if cfg.ConnConfig.RuntimeParams["statement_timeout"] == "" {
		cfg.ConnConfig.RuntimeParams["statement_timeout"] = statementTimeout
	}
	if cfg.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] == "" {
		// A process that was stopped in a transaction holds nobody up for longer.
		cfg.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = idleTransactionTimeout
	}
	if cfg.ConnConfig.RuntimeParams["jit"] == "" {
		// No statement here runs long enough to earn back its compilation.
		cfg.ConnConfig.RuntimeParams["jit"] = "off"
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the pool: %w", err)
	}
	db := &DB{pool: pool, quotas: newQuotas(cfg.MaxConns)}
	db.shared = coalesce.NewGroup(db.share)
	return db, nil
}

// refuseUnboundRole keeps a superuser's, or the tables' owner's, URL from silently switching RLS off.
func refuseUnboundRole(ctx context.Context, conn *pgx.Conn) error {
	var unbound bool
	err := conn.QueryRow(ctx, `
		select rolsuper or rolbypassrls or exists (
		         select 1 from pg_class where oid = to_regclass('resources') and pg_has_role(current_user, relowner, 'MEMBER'))
		  from pg_roles where rolname = current_user`).Scan(&unbound)
	if err != nil {
		return fmt.Errorf("look up the connection's role: %w", err)
	}
	if unbound {
		return errors.New("the role in database.url bypasses row-level security: use the login role that `leaver migrate` creates")
	}
	return nil
}

// Close waits for acquired connections and closes the pool.
func (db *DB) Close() { db.pool.Close() }

// Ping asks PostgreSQL for an answer.
func (db *DB) Ping(ctx context.Context) error { return classify(db.pool.Ping(ctx)) }

// tenantKey is where a connection remembers the tenant that its session names.
const tenantKey = "leaver.tenant"

// A session keeps the tenant it was told last, so that a connection that serves
// one tenant again need not be told again. Nothing reaches the pool but through
// the functions below, each of which names its tenant, or none.

// InTenant runs fn in one transaction that sees only that tenant's rows.
func (db *DB) InTenant(ctx context.Context, tenant uuid.UUID, fn func(pgx.Tx) error) error {
	return db.begin(ctx, tenant, fn)
}

// InNoTenant runs fn in one transaction that sees no tenant's rows: for the
// tenants' names, operators' tokens and the functions asked before a tenant is known.
func (db *DB) InNoTenant(ctx context.Context, fn func(pgx.Tx) error) error {
	return db.begin(ctx, uuid.Nil, fn)
}

func (db *DB) begin(ctx context.Context, tenant uuid.UUID, fn func(pgx.Tx) error) error {
	conn, release, err := db.acquire(ctx, tenant)
	if err != nil {
		return err
	}
	defer release()
	name := ""
	if tenant != uuid.Nil {
		name = tenant.String()
	}
	// A uuid's text has no quotes: this is no splice of client text, and it
	// saves the round trip that a parameter would cost.
	begin := "begin; set local leaver.tenant = '" + name + "'"
	if isSlow(ctx) {
		begin += "; set local statement_timeout = '" + slowStatementTimeout + "'"
	}
	return classify(pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{BeginQuery: begin}, fn))
}

// Statement is one of several that share a transaction and a round trip.
type Statement struct {
	SQL     string
	Args    []any
	Collect func(pgx.Rows) error // reads all rows; [Shared] may call it twice
}

// Together runs statements in a transaction of their own that sees only that
// tenant's rows, in a single round trip. A statement that fails undoes all; what
// a Collect does not like is committed.
func Together(ctx context.Context, db *DB, tenant uuid.UUID, statements ...Statement) error {
	conn, release, err := db.acquire(ctx, tenant)
	if err != nil {
		return err
	}
	defer release()
	if isSlow(ctx) {
		statements = append([]Statement{{SQL: `select set_config('statement_timeout', $1, true)`, Args: []any{slowStatementTimeout}, Collect: Drain}}, statements...)
	}
	session := conn.Conn().PgConn().CustomData()
	known := session[tenantKey] == tenant
	if known && len(statements) == 1 {
		return classify(query(ctx, conn, statements[0]))
	}
	// The statements of a batch are one implicit transaction: where it fails,
	// the session forgets the tenant again.
	delete(session, tenantKey)
	if err := together(ctx, conn, tenant, known, statements); err != nil {
		return classify(err)
	}
	session[tenantKey] = tenant
	return nil
}

// native gives pgx UUIDs in its own type: it would write each as text, by way
// of database/sql's interfaces, at ten times the cost.
func native(args []any) []any {
	for i, arg := range args {
		switch v := arg.(type) {
		case uuid.UUID:
			args[i] = pgtype.UUID{Bytes: v, Valid: true}
		case []uuid.UUID:
			ids := make([]pgtype.UUID, len(v))
			for j := range v {
				ids[j] = pgtype.UUID{Bytes: v[j], Valid: true}
			}
			args[i] = ids
		}
	}
	return args
}

func query(ctx context.Context, conn *pgxpool.Conn, s Statement) error {
	rows, err := conn.Query(ctx, s.SQL, native(s.Args)...)
	if err != nil {
		return err
	}
	err = s.Collect(rows)
	rows.Close()
	if err != nil {
		return err
	}
	return rows.Err()
}

func together(ctx context.Context, conn *pgxpool.Conn, tenant uuid.UUID, known bool, statements []Statement) error {
	batch := &pgx.Batch{}
	if !known {
		batch.Queue(`select set_config('leaver.tenant', $1, false)`, tenant.String())
	}
	for _, s := range statements {
		batch.Queue(s.SQL, native(s.Args)...)
	}
	results := conn.SendBatch(ctx, batch)
	var err error
	if !known {
		_, err = results.Exec()
	}
	for i := 0; err == nil && i < len(statements); i++ {
		var rows pgx.Rows
		if rows, err = results.Query(); err == nil {
			err = statements[i].Collect(rows)
		}
	}
	// The commit's own failure comes with Close.
	if closed := results.Close(); err == nil {
		err = closed
	}
	return err
}

// Once is [Together] for one statement, whose rows it collects.
func Once[T any](ctx context.Context, db *DB, tenant uuid.UUID, collect func(pgx.Rows) (T, error), sql string, args ...any) (T, error) {
	var value T
	err := Together(ctx, db, tenant, Statement{SQL: sql, Args: args, Collect: func(rows pgx.Rows) (err error) {
		value, err = collect(rows)
		return err
	}})
	if err != nil {
		var none T
		return none, err
	}
	return value, nil
}

// Nothing collects the rows of a statement that returns none of interest.
func Nothing(rows pgx.Rows) (struct{}, error) { return struct{}{}, Drain(rows) }

// Drain is [Nothing] for a [Statement].
func Drain(rows pgx.Rows) error {
	rows.Close()
	return rows.Err()
}

// classify adds [ErrUnavailable] where the cause is the server, not the query.
func classify(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) {
		return err
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch {
		case pgErr.Code == "57014": // query_canceled, by statement_timeout
			return fmt.Errorf("%w: %w", ErrTooDear, err)
		case pgErr.Code[:2] == "08", pgErr.Code[:2] == "53", pgErr.Code[:3] == "57P", pgErr.Code == "40001", pgErr.Code == "40P01",
			pgErr.Code[:2] == "28", // invalid authorization: an operator must fix the role's login
			pgErr.Code == "55P03":  // lock_not_available, by lock_timeout
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return err
	}
	var connectErr *pgconn.ConnectError
	var netErr net.Error
	if errors.As(err, &connectErr) || errors.As(err, &netErr) || pgconn.SafeToRetry(err) || errors.Is(err, pgconn.ErrConnClosed) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) { // reset while it answered
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// IsUniqueViolation tells whether err is a violation of the named unique index.
func IsUniqueViolation(err error, index string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "23505" && pgErr.ConstraintName == index
}

// IsLockTimeout tells whether err says that somebody held a row for longer than
// lock_timeout allows.
func IsLockTimeout(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "55P03"
}

// ForeignKeyViolation returns the name of the violated foreign key, if that is what err is.
func ForeignKeyViolation(err error) (string, bool) {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code == "23503" {
		return pgErr.ConstraintName, true
	}
	return "", false
}
