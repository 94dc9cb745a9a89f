// Package database provides the connection pool of the application, in which every transaction
// names its tenant, and the migrations of the schema.
package database

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leaverhq/leaver/internal/fault"
)

// statementTimeout bounds a statement, so that an expensive query, such as a filter with many
// conditions, does not occupy a connection.
const statementTimeout = "15s"

// idleTransactionTimeout bounds how long a transaction may wait for its client.
const idleTransactionTimeout = "10s"

// ErrStatementTimeout is returned when a statement exceeded statement_timeout.
var ErrStatementTimeout = fault.New(fault.Unavailable, "the statement exceeded statement_timeout")

// ErrUnavailable is returned when PostgreSQL cannot be reached or cannot answer now, or when the
// tenant has reached a limit of concurrent requests. The same request may succeed later.
var ErrUnavailable = fault.New(fault.Unavailable,
	"the database did not serve the request: it is down, or too many requests are in progress")

// DB is a connection pool of the application's role, which row-level security binds.
type DB struct {
	pool   *pgxpool.Pool
	quotas *quotas
	// lockTimeout is a setting of the transactions of [DB.Begin].
	lockTimeout string
}

// Open returns a pool for url. It succeeds while PostgreSQL is down (requests
// then fail with [ErrUnavailable]). The first connection fails if row-level security does not
// apply to its role.
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
		// A process that is suspended in a transaction keeps its locks no longer than this.
		cfg.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = idleTransactionTimeout
	}
	if cfg.ConnConfig.RuntimeParams["jit"] == "" {
		// No statement runs long enough to benefit from JIT compilation.
		cfg.ConnConfig.RuntimeParams["jit"] = "off"
	}
	lockTimeout := cmp.Or(cfg.ConnConfig.RuntimeParams["lock_timeout"], defaultLockTimeout)
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open the pool: %w", err)
	}
	return &DB{pool: pool, quotas: newQuotas(cfg.MaxConns), lockTimeout: lockTimeout}, nil
}

// refuseUnboundRole returns an error if the role bypasses row-level security, as a superuser and
// the owner of the tables do.
func refuseUnboundRole(ctx context.Context, conn *pgx.Conn) error {
	var bypasses bool
	err := conn.QueryRow(ctx, `
		select rolsuper or rolbypassrls or exists (
		         select 1 from pg_class where oid = to_regclass('resources')
		           and pg_has_role(current_user, relowner, 'MEMBER'))
		  from pg_roles where rolname = current_user`).Scan(&bypasses)
	if err != nil {
		return fmt.Errorf("look up the connection's role: %w", err)
	}
	if bypasses {
		return fmt.Errorf("%w: the role in database.url bypasses row-level security: "+
			"use the login role that `leaver migrate` creates", ErrMisconfigured)
	}
	return nil
}

// Close waits for acquired connections and closes the pool.
func (db *DB) Close() { db.pool.Close() }

// Ping checks that PostgreSQL responds.
func (db *DB) Ping(ctx context.Context) error { return classify(db.pool.Ping(ctx)) }

// classify adds [ErrUnavailable] if the cause is the server and not the query.
func classify(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) {
		return err
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		switch {
		case pgErr.Code == "57014": // query_canceled, by statement_timeout
			return fmt.Errorf("%w: %w", ErrStatementTimeout, err)
		case pgErr.Code[:2] == "08", pgErr.Code[:2] == "53", pgErr.Code[:3] == "57P", pgErr.Code == "40001",
			pgErr.Code == "40P01",
			pgErr.Code == "25P03", // idle_in_transaction_session_timeout: the process was suspended
			pgErr.Code == "55P03": // lock_not_available, by lock_timeout
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		case pgErr.Code[:2] == "28", pgErr.Code == "3D000": // invalid authorization, no such database
			return fmt.Errorf("%w: %w: %w: check database.url", ErrUnavailable, ErrMisconfigured, err)
		}
		return err
	}
	var connectErr *pgconn.ConnectError
	var netErr net.Error
	if errors.As(err, &connectErr) || errors.As(err, &netErr) || pgconn.SafeToRetry(err) ||
		errors.Is(err, pgconn.ErrConnClosed) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) { // reset during the response
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// IsUniqueViolation reports whether err is a violation of the named unique index.
func IsUniqueViolation(err error, index string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "23505" && pgErr.ConstraintName == index
}
