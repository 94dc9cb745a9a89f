package database

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Rows runs one statement in its own transaction, which sees only the tenant's rows, in one
// round trip, and scans the returned rows.
func Rows[T any](ctx context.Context, db *DB, tenant uuid.UUID, scan pgx.RowToFunc[T], sql string,
	args ...any,
) ([]T, error) {
	var values []T
	err := Together(ctx, db, tenant, Statement{SQL: sql, Args: args, Collect: All(&values, scan)})
	return values, err
}

// Row runs one statement like [Rows], and returns its only row. Errors: pgx.ErrNoRows,
// pgx.ErrTooManyRows.
func Row[T any](ctx context.Context, db *DB, tenant uuid.UUID, scan pgx.RowToFunc[T], sql string,
	args ...any,
) (T, error) {
	var value T
	err := Together(ctx, db, tenant, Statement{SQL: sql, Args: args, Collect: One(&value, scan)})
	return value, err
}

// Exec runs one statement like [Rows], and discards its rows.
func Exec(ctx context.Context, db *DB, tenant uuid.UUID, sql string, args ...any) error {
	return Together(ctx, db, tenant, Statement{SQL: sql, Args: args})
}

// All returns a Collect that scans all rows.
func All[T any](into *[]T, scan pgx.RowToFunc[T]) func(pgx.Rows) error {
	return func(rows pgx.Rows) (err error) {
		*into, err = pgx.CollectRows(rows, scan)
		return err
	}
}

// One returns a Collect that scans exactly one row. Errors: pgx.ErrNoRows, pgx.ErrTooManyRows.
func One[T any](into *T, scan pgx.RowToFunc[T]) func(pgx.Rows) error {
	return func(rows pgx.Rows) (err error) {
		*into, err = pgx.CollectExactlyOneRow(rows, scan)
		return err
	}
}

// Fields returns a Collect that scans the columns of exactly one row. Errors: those of [One].
func Fields(into ...any) func(pgx.Rows) error {
	var none struct{}
	return One(&none, func(row pgx.CollectableRow) (struct{}, error) { return none, row.Scan(into...) })
}

// Each returns a Collect that scans each row into the fields and calls next.
func Each(into []any, next func()) func(pgx.Rows) error {
	return func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, into, func() error { next(); return nil })
		return err
	}
}
