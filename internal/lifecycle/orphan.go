package lifecycle

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/directory"
)

// TriggerOrphaned is the trigger of the leave of an agent that lost its last
// active owner by a change of its owners, or of a group that owns it. (An agent
// whose owner leaves ends in the owner's own cascade.)
const TriggerOrphaned = "orphaned"

// orphan restricts the agents that the change of an agent or a group has left
// without an active owner, and makes each a leaver: had the group forgotten its
// last member first and deactivated that person then, nobody would find them.
func orphan(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, changed *directory.Resource, by Cause) ([]*Event, error) {
	if changed.Type == directory.TypeUser {
		return nil, nil
	}
	rows, err := tx.Query(ctx, `
		update resources a set active = false, document = a.document || '{"active": false}', version = a.version + 1, modified_at = now()
		 where a.tenant_id = $1 and a.type = 'Agent' and a.deleted_at is null
		   and (a.id = $2 or exists (select 1 from edges o
		        where o.tenant_id = $1 and o.source_id = a.id and o.attribute = 'owners' and o.target_id = $2))
		   and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = a.id)
		   and not has_active_owner($1, a.id, null)
		returning a.id, a.version`, tenant, changed.ID)
	if err != nil {
		return nil, err
	}
	type agent struct {
		ID      uuid.UUID
		Version int64
	}
	agents, err := pgx.CollectRows(rows, pgx.RowToStructByPos[agent])
	if err != nil {
		return nil, err
	}
	var events []*Event
	for _, a := range agents {
		event := &Event{
			Tenant: tenant, ID: uuid.New(), Kind: Leaver, Principal: a.ID, PrincipalType: directory.TypeAgent,
			Trigger: TriggerOrphaned, Actor: by.Actor, WorkflowID: workflowID(Leaver, tenant, a.ID, a.Version),
		}
		if err := insertEvent(ctx, tx, event); err != nil {
			return nil, err
		}
		if err := restrict(ctx, tx, tenant, a.ID, event, Cause{Trigger: TriggerOrphaned}); err != nil {
			return nil, err
		}
		events = append(events, event)
	}
	return events, nil
}
