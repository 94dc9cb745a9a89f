package database

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// sharedAtOnce is how many shared round trips of one tenant are under way: the queries
// that come meanwhile share the next.
const sharedAtOnce = 2

// errAlone says that queries could not share a round trip.
var errAlone = errors.New("the query must go alone")

// Shared is [Together] for one quick query: a tenant's that come while some are under
// way share a round trip, and with it a transaction. Where that fails each goes alone,
// so that Collect may be called twice.
func Shared(ctx context.Context, db *DB, tenant uuid.UUID, s Statement) error {
	err := db.shared.Do(ctx, tenant, s)
	if errors.Is(err, errAlone) {
		return Together(ctx, db, tenant, s)
	}
	return err
}

// share makes one round trip with several queries.
func (db *DB) share(ctx context.Context, tenant uuid.UUID, queries []Statement) []error {
	errs := make([]error, len(queries))
	statements := make([]Statement, len(queries))
	for i, q := range queries {
		statements[i] = Statement{SQL: q.SQL, Args: q.Args, Collect: func(rows pgx.Rows) error {
			// What it does not like is its own affair, and not the others'.
			errs[i] = q.Collect(rows)
			rows.Close()
			return rows.Err()
		}}
	}
	err := Together(ctx, db, tenant, statements...)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && len(queries) > 1 {
		err = errAlone
	}
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}
