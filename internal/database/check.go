package database

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrMisconfigured is returned for errors of PostgreSQL that a retry cannot fix: an operator
// must change the address, the role or the schema.
var ErrMisconfigured = errors.New("PostgreSQL is not set up for this process")

// CheckSchema returns an error unless this binary supports the schema.
// Errors: [ErrUnavailable], [ErrMisconfigured] with the next command.
func (db *DB) CheckSchema(ctx context.Context) error {
	var present, current bool
	err := db.InNoTenant(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			select to_regclass('public.tenants') is not null,
			       to_regclass('public.erasures') is not null`). // of the newest migration
			Scan(&present, &current)
	})
	var pgErr *pgconn.PgError
	switch {
	case errors.Is(err, ErrMisconfigured) && errors.As(err, &pgErr):
		return fmt.Errorf("%w: %s (SQLSTATE %s): check database.url; `leaver migrate` creates its role",
			ErrMisconfigured, pgErr.Message, pgErr.Code)
	case err != nil:
		return err
	case !present:
		return fmt.Errorf("%w: the database has no leaver schema, or the role cannot see it: run `leaver migrate`",
			ErrMisconfigured)
	case !current:
		return fmt.Errorf("%w: the schema is older than this binary: run `leaver migrate`", ErrMisconfigured)
	}
	return nil
}
