package database

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leaverhq/leaver/internal/coalesce"
)

// quickness bounds a query that others share or wait for: a slow one goes on alone.
const quickness = 250 * time.Millisecond

// lane is where queries share round trips.
type lane struct {
	tenant  uuid.UUID
	purpose string
}

// Shared is [Together] for one quick query: a tenant's with one purpose that come while
// some are under way share a round trip, and with it a transaction. Where that fails each
// goes alone.
func Shared(ctx context.Context, db *DB, tenant uuid.UUID, purpose string, s Statement) error {
	err := db.shared.Do(ctx, lane{tenant, purpose}, s)
	if errors.Is(err, coalesce.ErrAlone) {
		return Together(ctx, db, tenant, s)
	}
	return err
}

// share makes one round trip with several queries.
func (db *DB) share(ctx context.Context, of lane, queries []Statement) []error {
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
	if err := Quick(ctx, db, of.tenant, len(queries), statements...); err != nil {
		return coalesce.All(err, len(queries))
	}
	return errs
}

// Quick is [Together] for queries on behalf of so many callers. For more than one they
// must be quick, and a failure that may be one caller's own is coalesce.ErrAlone.
func Quick(ctx context.Context, db *DB, tenant uuid.UUID, callers int, queries ...Statement) error {
	if callers == 1 {
		return Together(ctx, db, tenant, queries...)
	}
	bound := Statement{SQL: `select set_config('statement_timeout', $1, true)`, Args: []any{quickness.String()}, Collect: Drain}
	err := Together(ctx, db, tenant, append([]Statement{bound}, queries...)...)
	if err != nil && !errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
		return coalesce.ErrAlone
	}
	return err
}

// Refused tells whether err is PostgreSQL's answer to a statement, which it has undone
// then: of what it did not answer nobody knows.
func Refused(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer)
}
