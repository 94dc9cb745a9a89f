package database

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrMisconfigured marks errors of PostgreSQL that no retry mends: an operator must change
// the address, the role or the schema.
var ErrMisconfigured = errors.New("PostgreSQL is not set up for this process")

// CheckSchema reports whether the schema is one that this binary works with.
// Errors: [ErrUnavailable], [ErrMisconfigured] with the next command.
func (db *DB) CheckSchema(ctx context.Context) error {
	var present, current bool
	err := db.InNoTenant(ctx, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, `
			select to_regclass('public.tenants') is not null,
			       exists (select 1 from pg_attribute where attrelid = to_regclass('public.resources') and attname = 'folded' and not attisdropped)`).
			Scan(&present, &current)
	})
	switch {
	case err != nil:
		return err
	case !present:
		return fmt.Errorf("%w: the database has no schema of leaver, or its role may not see it: run `leaver migrate`", ErrMisconfigured)
	case !current:
		return fmt.Errorf("%w: the schema is of an older version: run `leaver migrate`", ErrMisconfigured)
	}
	return nil
}
