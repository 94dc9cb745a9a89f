package directory

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/textkey"
)

// Named is a principal with its name.
type Named struct {
	ID         uuid.UUID `json:"id"`
	Type       string    `json:"type"`
	Name       string    `json:"name"` // userName or agentUserName, folded
	Restricted bool      `json:"restricted"`
}

const named = `
	select r.id, r.type, coalesce(r.unique_name, ''), exists (select 1 from restrictions x
	  where x.tenant_id = r.tenant_id and x.principal_id = r.id)
	  from resources r where r.tenant_id = $1 and r.type in ('User', 'Agent') and `

// ByName returns the principals with the userName or agentUserName: at most one User and one
// Agent.
func (s *Store) ByName(ctx context.Context, tenant uuid.UUID, name string) ([]Named, error) {
	return s.named(ctx, tenant, named+`r.unique_name = $2 and r.deleted_at is null order by r.type desc`,
		textkey.Fold(name))
}

// Named returns the principals with the IDs, including deleted ones.
func (s *Store) Named(ctx context.Context, tenant uuid.UUID, ids ...uuid.UUID) ([]Named, error) {
	return s.named(ctx, tenant, named+`r.id = any ($2) order by r.id`, ids)
}

// Parents returns the parents of those of the agents that have one.
func (s *Store) Parents(ctx context.Context, tenant uuid.UUID, agents []uuid.UUID) (map[uuid.UUID]uuid.UUID, error) {
	type edge struct{ Agent, Parent uuid.UUID }
	found, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[edge], `
		select source_id, target_id from edges where tenant_id = $1 and source_id = any ($2) and attribute = $3`,
		tenant, agents, EdgeParent)
	if err != nil {
		return nil, fmt.Errorf("look up the parents of agents: %w", err)
	}
	parents := make(map[uuid.UUID]uuid.UUID, len(found))
	for _, e := range found {
		parents[e.Agent] = e.Parent
	}
	return parents, nil
}

func (s *Store) named(ctx context.Context, tenant uuid.UUID, sql string, arg any) ([]Named, error) {
	found, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[Named], sql, tenant, arg)
	if err != nil {
		return nil, fmt.Errorf("look up principals: %w", err)
	}
	return found, nil
}
