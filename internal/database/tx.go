package database

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// defaultLockTimeout bounds how long a transaction of [DB.Begin] waits for a row that
// another transaction has locked, if the URL sets no lock_timeout. The caller then gets
// [ErrUnavailable], and may retry.
const defaultLockTimeout = "5s"

// rollbackTimeout bounds the rollback of a transaction whose context may have ended.
const rollbackTimeout = 5 * time.Second

// The tenant is a setting of the transaction, never of the session: tenants share sessions,
// and a connection pooler in transaction mode may own them.

// InTenant runs fn in one transaction that sees only the tenant's rows. uuid.Nil stands for no
// tenant.
func (db *DB) InTenant(ctx context.Context, tenant uuid.UUID, fn func(pgx.Tx) error) error {
	conn, release, err := db.acquire(ctx, tenant)
	if err != nil {
		return err
	}
	defer release()
	name := nameOf(tenant)
	// A parameter would cost a round trip. Concatenation is safe, since the text of a UUID
	// contains no quotes.
	begin := "begin; set local leaver.tenant = '" + name + "'"
	if isSlow(ctx) {
		begin += "; set local statement_timeout = '" + slowStatementTimeout + "'"
	}
	return classify(pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{BeginQuery: begin}, fn))
}

// InNoTenant runs fn in one transaction that sees no tenant's rows. It is for the tenants'
// names, operators' tokens and functions that are called before a tenant is known.
func (db *DB) InNoTenant(ctx context.Context, fn func(pgx.Tx) error) error {
	return db.InTenant(ctx, uuid.Nil, fn)
}

// Statement is one of several statements that share a round trip.
type Statement struct {
	SQL     string
	Args    []any
	Collect func(pgx.Rows) error // reads all rows; nil discards them
}

// Batcher sends batches: a transaction or a connection of pgx, or a [Tx].
type Batcher interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// Send runs statements in one round trip. A failing statement aborts the transaction; an
// error of Collect does not.
func Send(ctx context.Context, on Batcher, statements ...Statement) error {
	batch := &pgx.Batch{}
	for _, s := range statements {
		batch.Queue(s.SQL, native(s.Args)...)
	}
	results := on.SendBatch(ctx, batch)
	var err error
	for i := 0; err == nil && i < len(statements); i++ {
		var rows pgx.Rows
		if rows, err = results.Query(); err == nil {
			err = statements[i].collect(rows)
		}
	}
	// A failing commit is reported by Close.
	if closed := results.Close(); err == nil {
		err = closed
	}
	return classify(err)
}

func (s Statement) collect(rows pgx.Rows) error {
	var err error
	if s.Collect != nil {
		err = s.Collect(rows)
	}
	rows.Close()
	if err != nil {
		return err
	}
	return rows.Err()
}

// forTenant returns the statement that sets the transaction's tenant.
func forTenant(ctx context.Context, tenant uuid.UUID) Statement {
	name := nameOf(tenant)
	if isSlow(ctx) {
		return Statement{
			SQL:  `select set_config('leaver.tenant', $1, true), set_config('statement_timeout', $2, true)`,
			Args: []any{name, slowStatementTimeout},
		}
	}
	return Statement{SQL: `select set_config('leaver.tenant', $1, true)`, Args: []any{name}}
}

// nameOf returns the setting of a tenant; empty for uuid.Nil, which stands for no tenant.
func nameOf(tenant uuid.UUID) string {
	if tenant == uuid.Nil {
		return ""
	}
	return tenant.String()
}

// Together runs statements in one transaction of the tenant, or of no tenant with uuid.Nil,
// and in one round trip. A failing statement rolls all back; an error of Collect is returned
// after the commit.
func Together(ctx context.Context, db *DB, tenant uuid.UUID, statements ...Statement) error {
	conn, release, err := db.acquire(ctx, tenant)
	if err != nil {
		return err
	}
	defer release()
	// The statements of a batch are one implicit transaction.
	return Send(ctx, conn, append([]Statement{forTenant(ctx, tenant)}, statements...)...)
}

// Tx is a transaction of one tenant whose begin and commit share the round trips of its
// first and last statements. It must end by Commit or Rollback. It uses the connections for changes
// of principals (see [ForChange]).
type Tx struct {
	conn    *pgxpool.Conn
	release func()
}

// Begin begins a transaction with its first statements. If it returns an error, there is no
// transaction. Error: [ErrUnavailable], also if another transaction keeps a row locked.
func (db *DB) Begin(ctx context.Context, tenant uuid.UUID, first ...Statement) (*Tx, error) {
	conn, release, err := db.acquire(ForChange(ctx), tenant)
	if err != nil {
		return nil, err
	}
	tx := &Tx{conn, release}
	begin := []Statement{
		{SQL: "begin"},
		{
			SQL:  `select set_config('leaver.tenant', $1, true), set_config('lock_timeout', $2, true)`,
			Args: []any{tenant.String(), db.lockTimeout},
		},
	}
	if err := Send(ctx, conn, append(begin, first...)...); err != nil {
		tx.Rollback(ctx)
		return nil, err
	}
	return tx, nil
}

// SendBatch implements [Batcher].
func (tx *Tx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	return tx.conn.SendBatch(ctx, b)
}

// Commit runs the last statements and commits. If a statement fails, nothing is committed;
// if the connection breaks, the outcome is unknown. An error of a Collect is returned after
// the commit.
func (tx *Tx) Commit(ctx context.Context, last ...Statement) error {
	if tx.release == nil {
		return pgx.ErrTxClosed
	}
	if err := Send(ctx, tx.conn, append(last, Statement{SQL: "commit"})...); err != nil {
		tx.Rollback(ctx)
		return err
	}
	tx.end()
	return nil
}

// Rollback undoes the transaction, unless it has ended.
func (tx *Tx) Rollback(ctx context.Context) {
	if tx == nil || tx.release == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	// If it fails, the pool closes the connection, which rolls back too.
	_, _ = tx.conn.Exec(ctx, "rollback")
	tx.end()
}

func (tx *Tx) end() {
	tx.release()
	tx.release = nil
}

// native converts UUIDs to pgx's own type. Otherwise pgx would encode each as text, through
// database/sql's interfaces, at ten times the cost.
func native(args []any) []any {
	converted := make([]any, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case uuid.UUID:
			converted[i] = pgtype.UUID{Bytes: v, Valid: true}
		case []uuid.UUID:
			ids := make([]pgtype.UUID, len(v))
			for j := range v {
				ids[j] = pgtype.UUID{Bytes: v[j], Valid: true}
			}
			converted[i] = ids
		default:
			converted[i] = arg
		}
	}
	return converted
}
