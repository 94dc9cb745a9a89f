package database_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// TestQuota_LeavesConnectionsForOtherTenants uses up the quota of one tenant.
func TestQuota_LeavesConnectionsForOtherTenants(t *testing.T) {
	db, _ := stacktest.Open(t)
	greedy, other := uuid.New(), uuid.New()
	release := make(chan struct{})
	held := make(chan error, 100)
	for range 100 {
		go func() {
			_ = db.InTenant(context.Background(), greedy, func(pgx.Tx) error {
				held <- nil
				<-release
				return nil
			})
		}()
	}
	defer close(release)
	for range 8 { // two thirds of three quarters of 16
		<-held
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := db.InTenant(ctx, other, func(pgx.Tx) error { return nil }); err != nil {
		t.Errorf("transaction of another tenant: %v", err)
	}
	if err := db.InNoTenant(ctx, func(pgx.Tx) error { return nil }); err != nil {
		t.Errorf("transaction of no tenant: %v", err)
	}
	err := db.InTenant(t.Context(), greedy, func(pgx.Tx) error { return nil })
	if !errors.Is(err, database.ErrUnavailable) {
		t.Errorf("transaction above the quota: got %v, want ErrUnavailable", err)
	}
}

// TestQuota_LeavesConnectionsForChanges uses up everything that decisions and registrations of three
// tenants may use.
func TestQuota_LeavesConnectionsForChanges(t *testing.T) {
	db, _ := stacktest.Open(t)
	tenants := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
	release, held := make(chan struct{}), make(chan struct{}, 300)
	for range 100 {
		for _, of := range tenants {
			go func() {
				_ = db.InTenant(context.Background(), of, func(pgx.Tx) error {
					held <- struct{}{}
					<-release
					return nil
				})
			}()
		}
	}
	defer close(release)
	for range 12 { // three quarters of 16
		<-held
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	for _, of := range tenants {
		tx, err := db.Begin(ctx, of)
		if err != nil {
			t.Fatalf("change of a tenant whose places are taken: %v", err)
		}
		tx.Rollback(ctx)
	}
	if _, err := database.Row(database.ForChange(ctx), db, tenants[0], pgx.RowTo[int], `select 1`); err != nil {
		t.Errorf("read for a change: %v", err)
	}
	if err := db.InNoTenant(ctx, func(pgx.Tx) error { return nil }); err != nil {
		t.Errorf("authentication: %v", err)
	}
}

func TestSlow_BoundsPlacesAndStatements(t *testing.T) {
	db, _ := stacktest.Open(t)
	of, other := uuid.New(), uuid.New()
	var slow context.Context
	for range 2 { // a third of half of 16
		ctx, release, err := db.Slow(t.Context(), of)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		slow = ctx
	}
	if _, _, err := db.Slow(t.Context(), of); !errors.Is(err, database.ErrUnavailable) {
		t.Errorf("third search: got %v, want ErrUnavailable", err)
	}
	if _, release, err := db.Slow(t.Context(), other); err != nil {
		t.Errorf("search of another tenant: %v", err)
	} else {
		release()
	}
	for name, run := range map[string]func() error{
		"in a transaction": func() error {
			return db.InTenant(slow, of, func(tx pgx.Tx) error { _, err := tx.Exec(slow, `select pg_sleep(60)`); return err })
		},
		"in one round trip": func() error {
			err := database.Exec(slow, db, of, `select pg_sleep(60)`)
			return err
		},
	} {
		if err := run(); !errors.Is(err, database.ErrStatementTimeout) {
			t.Errorf("%s: got %v, want ErrStatementTimeout", name, err)
		}
	}
	got, err := database.Row(t.Context(), db, of, pgx.RowTo[string], `show statement_timeout`)
	if err != nil || got != "15s" {
		t.Errorf("statement_timeout after the slow statements is %q (%v), want 15s", got, err)
	}
}
