package cascade

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

// Planned is an item that a cascade would end.
type Planned struct {
	credential.Item
	Verb    credential.Verb
	Holders []uuid.UUID // other active principals on its account
	Secret  bool        // whether a secret is registered
}

// Plan returns the items that a cascade of the principal would end now, in the cascade's
// order, and the agents that would have no active owner. It changes nothing. If the tenant's
// policy hands these agents over to the principal's manager, Plan returns the manager and
// leaves out the agents' own items.
func (c *Store) Plan(
	ctx context.Context, tenant, principal uuid.UUID, limit int,
) (items []Planned, orphans []uuid.UUID, manager *uuid.UUID, err error) {
	managers, err := database.Rows(ctx, c.db, tenant, pgx.RowTo[uuid.UUID], lifecycle.ManagerSQL, tenant, principal)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("plan the cascade of %s: %w", principal, err)
	}
	if len(managers) > 0 {
		manager = &managers[0]
	}
	items, err = database.Rows(ctx, c.db, tenant, func(row pgx.CollectableRow) (Planned, error) {
		var p Planned
		var reliedOn bool
		err := row.Scan(append(p.Fields(), &reliedOn, &p.Holders, &p.Secret)...)
		p.Verb = credential.EndVerb(p.Kind, reliedOn)
		return p, err
	}, `
		with ending as materialized (select array(select $2::uuid union select a from agents_ending_with($1, $2) a
		  where not $4) as ids)
		select `+credential.Columns+`, relied_on(i, (select ids from ending)),
		       array(select distinct o.principal_id from other_holders(i) h
		              join credentials o on o.tenant_id = $1 and o.id = h
		              where o.principal_id <> all ((select ids from ending)::uuid[])),
		       secret is not null
		  from credentials i
		 where i.tenant_id = $1 and i.state in ('live', 'ending', 'failed')
		   and `+ofEnding+`
		 order by `+endsLater+`, i.id limit $3`, tenant, principal, limit, manager != nil)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("plan the cascade of %s: %w", principal, err)
	}
	orphans, err = database.Rows(ctx, c.db, tenant, pgx.RowTo[uuid.UUID],
		`select a from agents_ending_with($1, $2) a where a <> $2 order by a`, tenant, principal)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("plan the cascade of %s: %w", principal, err)
	}
	return items, orphans, manager, nil
}
