package database_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// inCompany asks so many times at once, while others are under way.
func inCompany(t *testing.T, db *database.DB, n int, statement func(i int, collect func(pgx.Rows) error) database.Statement) []error {
	t.Helper()
	tenant := uuid.New()
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			var got int
			errs[i] = database.Shared(t.Context(), db, tenant, "test", statement(i, func(rows pgx.Rows) (err error) {
				got, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
				return err
			}))
			if errs[i] == nil && got != i {
				t.Errorf("query %d was answered %d", i, got)
			}
		})
	}
	all.Wait()
	return errs
}

func TestAQueryThatPostgreSQLRefusesFailsNoOther(t *testing.T) {
	db, _ := stacktest.Open(t)
	for i, err := range inCompany(t, db, 100, func(i int, collect func(pgx.Rows) error) database.Statement {
		return database.Statement{SQL: `select 0 / ($1::int % 10 - 3) + $1`, Args: []any{i}, Collect: collect}
	}) {
		if (err != nil) != (i%10 == 3) {
			t.Errorf("query %d: %v", i, err)
		}
	}
}

func TestWhatACollectDoesNotLikeIsItsOwn(t *testing.T) {
	db, _ := stacktest.Open(t)
	displeased := errors.New("displeased")
	for i, err := range inCompany(t, db, 100, func(i int, collect func(pgx.Rows) error) database.Statement {
		if i%10 == 3 {
			collect = func(pgx.Rows) error { return displeased }
		}
		return database.Statement{SQL: `select $1::int`, Args: []any{i}, Collect: collect}
	}) {
		if errors.Is(err, displeased) != (i%10 == 3) {
			t.Errorf("query %d: %v", i, err)
		}
	}
}

func TestQueriesOfDifferentTenantsShareNothing(t *testing.T) {
	db, _ := stacktest.Open(t)
	var all sync.WaitGroup
	for range 8 {
		tenant := uuid.New()
		for range 25 {
			all.Go(func() {
				var named string
				err := database.Shared(context.WithoutCancel(t.Context()), db, tenant, "test", database.Statement{SQL: `select current_setting('leaver.tenant')`, Collect: func(rows pgx.Rows) (err error) {
					named, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[string])
					return err
				}})
				if err != nil || named != tenant.String() {
					t.Errorf("a query of %s ran as %s (%v)", tenant, named, err)
				}
			})
		}
	}
	all.Wait()
}
