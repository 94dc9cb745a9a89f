package authzen_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/authzen"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/directory"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// TestDecide_ReadsPartiesByID checks PostgreSQL's plan under row-level security, where a condition that
// calls a function uses no index: each scan of resources must be by id.
func TestDecide_ReadsPartiesByID(t *testing.T) {
	db, at := stacktest.Open(t)
	tenant := uuid.New()
	parties := authzen.Parties(tenant, authzen.Question{
		SubjectType: directory.TypeAgent, Subject: "bot", OnBehalfOf: "ada", OnBehalfOfType: directory.TypeUser,
		Issuers: []string{""}, Action: "read", ResourceType: "document", Resource: "1",
	})
	owner, err := pgx.Connect(t.Context(), at.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = owner.Close(context.Background()) }()
	if _, err := owner.Exec(t.Context(), `
		insert into resources (tenant_id, id, type, unique_name, document, created_at, modified_at)
		select $1, gen_random_uuid(), t, t || i, '{}', now(), now()
		  from generate_series(1, 2000) i, unnest(array['User', 'Agent']) t`, tenant); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Exec(t.Context(), `analyze resources`); err != nil {
		t.Fatal(err)
	}
	var plan []string
	if err := database.Together(t.Context(), db, tenant, database.Statement{
		SQL: `explain (costs off) ` + parties.SQL, Args: parties.Args,
		Collect: func(rows pgx.Rows) (err error) {
			plan, err = pgx.CollectRows(rows, pgx.RowTo[string])
			return err
		},
	}); err != nil {
		t.Fatal(err)
	}
	scans := 0
	for i, line := range plan {
		if !strings.Contains(line, " on resources ") {
			continue
		}
		if scans++; i+1 == len(plan) || !strings.Contains(plan[i+1], "Index Cond") || !strings.Contains(plan[i+1], "(id = ") {
			t.Errorf("not by id:\n%s", strings.Join(plan, "\n"))
		}
	}
	if scans < 2 {
		t.Errorf("%d scans of resources, want those of the subject and the principal", scans)
	}
}
