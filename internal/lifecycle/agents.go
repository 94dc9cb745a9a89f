package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/ssf"
)

// agent is an agent that has lost, or will lose, its last active owner.
type agent struct {
	ID         uuid.UUID
	Version    int64
	Owned      bool // has at least one owner edge
	Restricted bool
}

// endOrphans emits a leaver event for each agent that a change of an agent or a (nested)
// group left without an active owner, and returns their number. A later cascade of the
// removed member would not find these agents.
func (tx *Tx) endOrphans(ctx context.Context, changed uuid.UUID) (int, error) {
	orphans, err := tx.lockAgents(ctx, orphansSQL, changed)
	if err != nil || len(orphans) == 0 {
		return 0, err
	}
	by := tx.by
	tx.by.Trigger = TriggerOrphaned
	defer func() { tx.by = by }()
	principals := make([]Principal, len(orphans))
	for i, a := range orphans {
		principals[i] = Principal{ID: a.ID, Type: directory.TypeAgent, Version: a.Version + 1}
	}
	events, err := tx.Emit(ctx, Leaver, nil, Emission{Grace: grace}, principals...)
	if err != nil {
		return 0, err
	}
	own := make(map[uuid.UUID]uuid.UUID, len(events))
	for _, e := range events {
		own[e.Principal] = e.ID
	}
	tx.suspend(orphans, func(a agent) uuid.UUID { return own[a.ID] })
	return len(orphans), nil
}

// maxLockRounds bounds the attempts to lock a set of agents that changes concurrently.
const maxLockRounds = 5

// lockAgents locks the agents that a query selects for a principal, and returns their state
// under the lock. Error: database.ErrUnavailable, if concurrent changes keep adding agents.
func (tx *Tx) lockAgents(ctx context.Context, sql string, principal uuid.UUID) ([]agent, error) {
	args := []any{tx.tenant, principal}
	for range maxLockRounds {
		var locked, agents []agent
		err := tx.send(ctx,
			database.Statement{SQL: sql + "for no key update of a", Args: args, Collect: collectAgents(&locked)},
			// A second statement sees what was committed during the wait for the lock.
			database.Statement{SQL: sql, Args: args, Collect: collectAgents(&agents)})
		if err != nil {
			return nil, err
		}
		isLocked := func(a agent) bool { return slices.ContainsFunc(locked, func(l agent) bool { return l.ID == a.ID }) }
		if !slices.ContainsFunc(agents, func(a agent) bool { return !isLocked(a) }) {
			return agents, nil
		}
	}
	return nil, fmt.Errorf("%w: the agents of %s changed during each of %d attempts to lock them: try again",
		database.ErrUnavailable, principal, maxLockRounds)
}

// orphansSQL selects the active agents without an active owner among $2, the agents that it
// owns, and the agents that a group above it owns. The ids are an array, so that the query
// uses the primary key.
const orphansSQL = `
	with recursive above (id) as (
	  select $2::uuid
	  union
	  select e.source_id from above join edges e on e.tenant_id = $1 and e.target_id = above.id
	    and e.attribute = 'members')
	select a.id, a.version, true, false from resources a
	 where a.tenant_id = $1 and a.type = 'Agent' and a.deleted_at is null
	   and a.id = any (array(select $2::uuid union select o.source_id from above
	         join edges o on o.tenant_id = $1 and o.target_id = above.id and o.attribute = 'owners'))
	   and a.active is distinct from false
	   and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = a.id)
	   and active_owner($1, a.id, null) is null
	 order by a.id `

func collectAgents(into *[]agent) func(pgx.Rows) error {
	return database.All(into, pgx.RowToStructByPos[agent])
}

// settled is the state of a leaver that Settle reads.
type settled struct {
	Actor      string
	WorkflowID string
	Restricted bool // false if the principal has returned; its agents then stay unchanged
	Manager    *uuid.UUID
}

// ManagerSQL selects the manager of user $2, if the tenant's orphan policy is "manager" and
// the manager is not restricted. The manager receives the agents without another active
// owner.
const ManagerSQL = `
	select m.id from resources r
	  join tenants p on p.id = $1 and p.orphans = 'manager'
	  join resources m on m.tenant_id = $1 and m.type = 'User' and m.deleted_at is null
	   and m.id::text = r.document -> 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User' -> 'manager' ->> 'value'
	 where r.tenant_id = $1 and r.id = $2 and r.type = 'User' and m.id <> $2
	   and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = m.id)`

// endingSQL selects the agents that have no active owner other than $2.
const endingSQL = `
	select a.id, a.version, exists (select 1 from edges o where o.tenant_id = $1 and o.source_id = a.id
	  and o.attribute = 'owners'),
	       exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = a.id)
	  from resources a where a.tenant_id = $1 and a.id <> $2
	    and a.id = any (array(select agents_ending_with($1, $2))) order by a.id `

// SettleAgents applies the tenant's policy to the agents that have no active owner other than the
// leaver: it hands them over to the leaver's manager, with a mover event for each, or
// suspends them in the leaver's cascade. It can be repeated.
func (w *Writer) SettleAgents(
	ctx context.Context, tenant, principal, event uuid.UUID,
) (handedOver, suspended []uuid.UUID, err error) {
	var s settled
	var agents []agent
	args := []any{tenant, principal}
	read := []database.Statement{
		{
			SQL: `select e.actor, e.workflow_id, exists (select 1 from restrictions x where x.tenant_id = $1
				and x.principal_id = $2), (` + ManagerSQL + `)
			        from lifecycle_events e where e.tenant_id = $1 and e.id = $3`,
			Args: []any{tenant, principal, event}, Collect: database.One(&s, pgx.RowToStructByPos[settled]),
		},
	}
	err = database.Together(ctx, w.db, tenant, append(read[:1:1], database.Statement{
		SQL: endingSQL, Args: args,
		Collect: collectAgents(&agents),
	})...)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil, fmt.Errorf("event %s: %w", event, ErrEventNotFound)
	}
	if err == nil && (!s.Restricted || len(agents) == 0) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the agents of %s: %w", principal, err)
	}
	open, err := w.db.Begin(ctx, tenant)
	if err != nil {
		return nil, nil, fmt.Errorf("lock the agents of %s: %w", principal, err)
	}
	defer open.Rollback(ctx)
	tx := In(open, tenant, Cause{Trigger: TriggerOrphaned, Actor: s.Actor})
	if agents, err = tx.lockAgents(ctx, endingSQL, principal); err == nil {
		err = tx.send(ctx, read...)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("lock the agents of %s: %w", principal, err)
	}
	if !s.Restricted || len(agents) == 0 {
		return nil, nil, nil
	}
	if s.Manager != nil {
		if handedOver, err = tx.handOver(ctx, agents, *s.Manager); err == nil {
			agents, err = tx.lockAgents(ctx, endingSQL, principal)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("hand over the agents of %s: %w", principal, err)
		}
	}
	suspended = tx.suspendFor(agents, event, s.WorkflowID)
	if err := open.Commit(ctx, tx.take()...); err != nil {
		return nil, nil, fmt.Errorf("suspend the agents of %s: %w", principal, err)
	}
	return handedOver, suspended, nil
}

// handOver makes the manager an owner of the agents that have owners and are not
// restricted. It emits a mover event for each; the relay starts the workflows.
func (tx *Tx) handOver(ctx context.Context, agents []agent, manager uuid.UUID) (ids []uuid.UUID, err error) {
	var principals []Principal
	for _, a := range agents {
		if a.Owned && !a.Restricted {
			ids = append(ids, a.ID)
			principals = append(principals, Principal{ID: a.ID, Type: directory.TypeAgent, Version: a.Version + 1})
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	by := tx.by
	tx.by.Trigger = TriggerHandedOver
	defer func() { tx.by = by }()
	tx.add(`
		insert into edges (tenant_id, source_id, attribute, target_id)
		select $1, a, 'owners', $3 from unnest($2::uuid[]) a on conflict do nothing`, tx.tenant, ids, manager)
	tx.add(`
		with changed as (
		  update resources set version = version + 1, modified_at = now() where tenant_id = $1 and id = any ($2)
		    returning id, version)
		insert into changes (tenant_id, resource_id, resource_type, version, trigger, actor, changed)
		select $1, id, 'Agent', version, $3, $4, '{owners}' from changed`, tx.tenant, ids, tx.by.Trigger, tx.by.Actor)
	_, err = tx.Emit(ctx, Mover, []string{directory.EdgeOwners}, Emission{}, principals...)
	return ids, err
}

// suspendFor queues the suspension of agents by the cascade of a leaver's event.
func (tx *Tx) suspendFor(agents []agent, event uuid.UUID, workflow string) (ids []uuid.UUID) {
	if len(agents) == 0 {
		return nil
	}
	var notified []ssf.Signal
	for _, a := range agents {
		ids = append(ids, a.ID)
		if !a.Restricted {
			notified = append(notified, suspendedSignals(a.ID, event, workflow)...)
		}
	}
	tx.suspend(agents, func(agent) uuid.UUID { return event })
	tx.notify(notified...)
	return ids
}
