package health_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/health"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

func TestHealth_OfAFreshInstallationIsQuiet(t *testing.T) {
	db, _ := stacktest.Open(t)
	h, err := health.NewStore(db).Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if h.Unstarted+h.Survivors+h.Waived+h.Unmanaged+h.Holds+h.Running+h.NotBegun+h.NotAsked != 0 ||
		h.Oldest+h.Stalled+h.Invalidations+h.Signals != 0 || len(h.Scheduled)+len(h.Passed)+len(h.Failed) != 0 {
		t.Errorf("the health is %+v, want zeros", h)
	}
}

func TestHealth_KeepsTheLastResultOfEachKind(t *testing.T) {
	db, _ := stacktest.Open(t)
	s := health.NewStore(db)
	for _, run := range []struct {
		kind   health.Kind
		passed bool
	}{{health.Drill, true}, {health.Drill, false}, {health.Reconcile, true}} {
		if err := s.Record(t.Context(), run.kind, run.passed, map[string]int{"verified": 1}); err != nil {
			t.Fatal(err)
		}
	}
	h, err := s.Read(t.Context())
	if err != nil || len(h.Passed) != 2 || len(h.Failed) != 1 || !h.Failed[health.Drill].After(h.Passed[health.Drill]) {
		t.Errorf("passed %v, failed %v, %v; want both kinds, and a later failure of the drill", h.Passed, h.Failed, err)
	}
}

func TestSchedule_KeepsTheTimeOfAKindThatStays(t *testing.T) {
	db, at := stacktest.Open(t)
	conn, err := pgx.Connect(t.Context(), at.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	s := health.NewStore(db)
	read := func() health.Health {
		t.Helper()
		h, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	if err := health.Schedule(t.Context(), conn, health.Reconcile, health.Drill); err != nil {
		t.Fatal(err)
	}
	before := read().Scheduled
	if err := health.Schedule(t.Context(), conn, health.Reconcile); err != nil {
		t.Fatal(err)
	}
	after := read().Scheduled
	if len(before) != 2 || len(after) != 1 || !after[health.Reconcile].Equal(before[health.Reconcile]) {
		t.Errorf("scheduled %v, then %v; want the same time of the reconciliation alone", before, after)
	}
}
