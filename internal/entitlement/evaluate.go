package entitlement

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/mapping"
	"github.com/leaverhq/leaver/internal/ssf"
)

// Cause is the lifecycle event that causes an evaluation of entitlements.
type Cause struct {
	Event uuid.UUID
	// Ends: the event's own workflow ends the credentials whose entitlement is lost.
	// Otherwise Compute emits a mover event for each principal with such credentials.
	Ends bool
}

// MaxBatch bounds how many principals are evaluated in one transaction.
const MaxBatch = 250

// Evaluate evaluates the entitlements of principals and stores the difference. In the same
// transaction it marks the credentials whose entitlement is lost as ending, in a mover event.
// Of concurrent evaluations of one principal, the last one sees all changes that caused them.
// It does nothing if the tenant has no rules.
func (s *Store) Evaluate(
	ctx context.Context, of uuid.UUID, principals []uuid.UUID, by Cause,
) ([]connectors.EntitlementChange, error) {
	var changes []connectors.EntitlementChange
	err := s.db.InTenant(ctx, of, func(tx pgx.Tx) error {
		ids := sorted(principals)
		// Return without a lock if there are no rules. They are read again under the lock.
		if _, _, err := s.current(ctx, tx, of); err != nil {
			return err
		}
		if err := lock(ctx, tx, of, ids); err != nil {
			return err
		}
		rules, version, err := s.current(ctx, tx, of)
		if err != nil {
			return err
		}
		read, err := readPrincipals(ctx, tx, of, ids)
		if err != nil {
			return err
		}
		if err := writeGroups(ctx, tx, of, ids, read); err != nil {
			return err
		}
		changes, err = writer{tx, of, ids, version, by}.write(ctx, read, derive(rules, read))
		return err
	})
	if errors.Is(err, ErrNoMapping) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("evaluate entitlements: %w", err)
	}
	return changes, nil
}

// lock locks the principals' rows, in a fixed order, and deletes their invalidations. It also
// forces custom plans for the transaction, since a plan that was cached while the tables were
// small would scan them.
func lock(ctx context.Context, tx pgx.Tx, of uuid.UUID, ids []uuid.UUID) error {
	if _, err := tx.Exec(ctx, `set local plan_cache_mode = force_custom_plan`); err != nil {
		return err
	}
	if err := lockRows(ctx, tx, of, ids); err != nil {
		return err
	}
	// After the lock and before any read, so that a later invalidation causes another evaluation.
	_, err := tx.Exec(ctx, `delete from invalidations where tenant_id = $1 and principal_id = any ($2)`, of, ids)
	return err
}

func lockRows(ctx context.Context, tx pgx.Tx, of uuid.UUID, ids []uuid.UUID) error {
	return database.Send(ctx, tx,
		database.Statement{SQL: `
			insert into evaluations (tenant_id, principal_id) select $1, p from unnest($2::uuid[]) p
			on conflict do nothing`, Args: []any{of, ids}},
		database.Statement{SQL: `
			select 1 from evaluations where tenant_id = $1 and principal_id = any ($2) order by principal_id
			  for update`, Args: []any{of, ids}})
}

// sorted returns ids in the order in which their rows are locked.
func sorted(ids []uuid.UUID) []uuid.UUID {
	return slices.SortedFunc(slices.Values(ids), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
}

// principal is a principal to which rules are applied if it is here.
type principal struct {
	mapping.Principal
	here bool // not restricted
}

// readPrincipals reads the documents and groups of the principals that are not deleted.
func readPrincipals(ctx context.Context, tx pgx.Tx, of uuid.UUID, ids []uuid.UUID) ([]principal, error) {
	rows, err := tx.Query(ctx, `
		select r.id, r.type, r.document, not exists (select 1 from restrictions x where x.tenant_id = $1
		  and x.principal_id = r.id)
		  from resources r where r.tenant_id = $1 and r.id = any ($2) and r.type in ('User', 'Agent')
		    and r.deleted_at is null order by r.id`, of, ids)
	if err != nil {
		return nil, err
	}
	at := make(map[uuid.UUID]int)
	read, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (principal, error) {
		var p principal
		return p, row.Scan(&p.ID, &p.Type, &p.Document, &p.here)
	})
	if err != nil {
		return nil, err
	}
	for i, p := range read {
		at[p.ID] = i
	}
	rows, err = tx.Query(ctx, groupsSQL, of, ids)
	if err != nil {
		return nil, err
	}
	var id uuid.UUID
	var g mapping.Group
	_, err = pgx.ForEachRow(rows, []any{&id, &g.ID, &g.DisplayName, &g.ExternalID, &g.Direct}, func() error {
		if i, ok := at[id]; ok {
			read[i].Groups = append(read[i].Groups, g)
		}
		return nil
	})
	return read, err
}

// groupsSQL selects the groups of many principals, directly or through other groups, as
// groups_of does for one. `union` ends cycles. `offset 0` forces an index lookup in each step:
// the planner underestimates tables that have just grown, and overestimates recursions so much
// that it would scan the directory.
const groupsSQL = `
	with recursive up (principal_id, group_id, direct) as (
	  select p.id, g.id, true from unnest($2::uuid[]) p (id)` + groupsAbove + `
	  union
	  select up.principal_id, g.id, false from up cross join lateral (select up.group_id id) p` + groupsAbove + `)
	select u.principal_id, u.group_id, g.display_name, g.external_id, u.direct
	  from (select principal_id, group_id, bool_or(direct) direct from up group by 1, 2) u
	 cross join lateral (
	   select coalesce(g.display_name, '') display_name, coalesce(g.external_id, '') external_id
	     from resources g where g.tenant_id = $1 and g.id = u.group_id offset 0) g
	 order by u.principal_id, u.group_id`

// groupsAbove joins p with the groups g that it is a member of.
const groupsAbove = `
	   cross join lateral (select e.source_id from edges e where e.tenant_id = $1 and e.target_id = p.id
	     and e.attribute = 'members' offset 0) e
	   cross join lateral (select g.id from resources g where g.tenant_id = $1 and g.id = e.source_id
	     and g.deleted_at is null offset 0) g`

// derived holds the evaluated entitlements of principals, as columns.
type derived struct {
	principals []uuid.UUID
	names      []string
	sources    []string // JSON
}

func derive(rules *mapping.Rules, read []principal) derived {
	d := derived{principals: []uuid.UUID{}, names: []string{}, sources: []string{}}
	for _, p := range read {
		if !p.here {
			continue
		}
		for name, sources := range rules.Apply(p.Principal).Entitlements {
			encoded, _ := json.Marshal(sources) // strings and IDs always encode
			d.principals, d.names, d.sources = append(d.principals, p.ID), append(d.names, name),
				append(d.sources, string(encoded))
		}
	}
	return d
}

// writeGroups stores the groups that the evaluation has read, also those of restricted
// principals. [Store.Moved] compares them to find the principals that joined or left a group.
func writeGroups(ctx context.Context, tx pgx.Tx, of uuid.UUID, ids []uuid.UUID, read []principal) error {
	principals, groups, directs := []uuid.UUID{}, []uuid.UUID{}, []bool{}
	for _, p := range read {
		for _, g := range p.Groups {
			principals, groups, directs = append(principals, p.ID), append(groups, g.ID), append(directs, g.Direct)
		}
	}
	_, err := tx.Exec(ctx, `
		with met as materialized (select * from unnest($3::uuid[], $4::uuid[], $5::boolean[]) m (principal_id,
		  group_id, direct)),
		gone as (
		  delete from group_snapshots c where c.tenant_id = $1 and c.principal_id = any ($2)
		     and not exists (select 1 from met where met.principal_id = c.principal_id and met.group_id = c.group_id))
		insert into group_snapshots as c (tenant_id, principal_id, group_id, direct) select $1, principal_id,
		  group_id, direct from met
		on conflict (tenant_id, principal_id, group_id) do update set direct = excluded.direct
		  where c.direct <> excluded.direct`,
		of, ids, principals, groups, directs)
	return err
}

// writeSQL stores the difference and its audit trail.
const writeSQL = `
	with wanted as materialized (
	  select * from unnest($3::uuid[], $4::text[], $5::jsonb[]) w (principal_id, name, sources)),
	lost as (
	  delete from entitlements e where e.tenant_id = $1 and e.principal_id = any ($2)
	     and not exists (select 1 from wanted w where w.principal_id = e.principal_id and w.name = e.name)
	  returning e.principal_id, e.name),
	stored as (
	  insert into entitlements as e (tenant_id, principal_id, name, sources) select $1, principal_id, name, sources
	    from wanted
	  on conflict (tenant_id, principal_id, name) do update set sources = excluded.sources
	    where e.sources is distinct from excluded.sources
	  returning e.principal_id, e.name, xmax = 0 as new),
	changed as (
	  select principal_id, name, true gained from stored where new union all select principal_id, name, false from lost),
	recorded as (
	  insert into entitlement_changes (tenant_id, principal_id, name, gained, version, event_id)
	  select $1, principal_id, name, gained, $6, nullif($7, '00000000-0000-0000-0000-000000000000'::uuid) from changed),
	dated as (
	  update evaluations set version = $6, evaluated_at = now() where tenant_id = $1 and principal_id = any ($2))
	select principal_id, name, gained from changed order by principal_id, name`

// write stores the evaluated entitlements, and ends credentials whose entitlement is lost.
func (w writer) write(ctx context.Context, read []principal, d derived) ([]connectors.EntitlementChange, error) {
	var rows []change
	err := database.Send(ctx, w.tx, database.Statement{
		SQL: writeSQL, Args: []any{w.of, w.ids, d.principals, d.names, d.sources, w.version, w.by.Event},
		Collect: database.All(&rows, pgx.RowToStructByPos[change]),
	})
	if err != nil {
		return nil, err
	}
	changes := byPrincipal(rows)
	if err := w.notify(ctx, changes, typesOf(read), d); err != nil {
		return nil, err
	}
	return changes, w.end(ctx, d)
}

func typesOf(read []principal) map[uuid.UUID]string {
	types := make(map[uuid.UUID]string, len(read))
	for _, p := range read {
		types[p.ID] = p.Type
	}
	return types
}

// writer stores an evaluation within its transaction.
type writer struct {
	tx      pgx.Tx
	of      uuid.UUID
	ids     []uuid.UUID
	version int
	by      Cause
}

// notify stores a token-claims-change signal for each change. d holds the new entitlements.
func (w writer) notify(
	ctx context.Context, changes []connectors.EntitlementChange, types map[uuid.UUID]string, d derived,
) error {
	if len(changes) == 0 {
		return nil
	}
	var workflow string
	err := w.tx.QueryRow(ctx, `select workflow_id from lifecycle_events where tenant_id = $1 and id = $2`, w.of,
		w.by.Event).Scan(&workflow)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	held := make(map[uuid.UUID][]string)
	for i, id := range d.principals {
		held[id] = append(held[id], d.names[i])
	}
	signals := make([]ssf.Signal, len(changes))
	for i, c := range changes {
		names := held[c.Principal]
		slices.Sort(names)
		signals[i] = ssf.ClaimsChanged(c.Principal, types[c.Principal], workflow, names)
	}
	return database.Send(ctx, w.tx, ssf.Record(w.of, signals...))
}

// endedSQL selects live items that were granted under an entitlement that the principal does
// not have. The items of a restricted principal belong to its leaver event.
const endedSQL = `
	with wanted as materialized (select * from unnest($3::uuid[], $4::text[]) w (principal_id, name))
	select i.id, r.id, r.type, r.version from credentials i
	  join resources r on r.tenant_id = $1 and r.id = i.principal_id
	 where i.tenant_id = $1 and i.principal_id = any ($2) and i.state = 'live' and i.entitlement ~ '^(team|role|scope):.'
	   and not exists (select 1 from wanted w where w.principal_id = i.principal_id and w.name = i.entitlement)
	   and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = i.principal_id)
	 order by i.principal_id, i.id`

// end marks credentials whose entitlement is lost as ending: in the event's own workflow if
// w.by.Ends, otherwise in a mover of each principal.
func (w writer) end(ctx context.Context, d derived) error {
	var items, holders []uuid.UUID
	var moved []lifecycle.Principal
	var item uuid.UUID
	p := lifecycle.Principal{HasEvent: true}
	collect := database.Each([]any{&item, &p.ID, &p.Type, &p.Version}, func() {
		items, holders = append(items, item), append(holders, p.ID)
		if len(moved) == 0 || moved[len(moved)-1].ID != p.ID {
			moved = append(moved, p)
		}
	})
	err := database.Send(ctx, w.tx, database.Statement{
		SQL: endedSQL, Args: []any{w.of, w.ids, d.principals, d.names}, Collect: collect,
	})
	if err != nil || len(items) == 0 {
		return err
	}
	events := make([]uuid.UUID, len(items))
	if w.by.Ends {
		for i := range events {
			events[i] = w.by.Event
		}
		err = lifecycle.In(w.tx, w.of, lifecycle.Cause{}).SetEnds(ctx, w.by.Event)
	} else {
		err = w.move(ctx, moved, holders, events)
	}
	if err != nil {
		return err
	}
	_, err = w.tx.Exec(ctx, `
		update credentials i set state = 'ending', reason = 'its entitlement is lost', event_id = m.event, updated_at = now()
		  from unnest($2::uuid[], $3::uuid[]) m (id, event)
		 where i.tenant_id = $1 and i.id = m.id and i.state = 'live'`, w.of, items, events)
	return err
}

// move emits a mover for each principal, and sets the event of each item.
func (w writer) move(ctx context.Context, moved []lifecycle.Principal, holders, events []uuid.UUID) error {
	actor := "leaver"
	err := w.tx.QueryRow(ctx, `select actor from lifecycle_events where tenant_id = $1 and id = $2`, w.of,
		w.by.Event).Scan(&actor)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	tx := lifecycle.In(w.tx, w.of, lifecycle.Cause{Trigger: lifecycle.TriggerEntitlement, Actor: actor})
	emitted, err := tx.Emit(ctx, lifecycle.Mover, []string{"entitlements"}, lifecycle.Emission{Ends: true}, moved...)
	if err != nil {
		return err
	}
	of := make(map[uuid.UUID]uuid.UUID, len(emitted))
	for _, e := range emitted {
		of[e.Principal] = e.ID
	}
	for i, holder := range holders {
		events[i] = of[holder]
	}
	return nil
}

// Withdraw deletes the entitlements of restricted principals, and records the losses under
// event. It waits for running evaluations. It does nothing if the tenant has no rules.
func (s *Store) Withdraw(ctx context.Context, of uuid.UUID, principals []uuid.UUID, event uuid.UUID) error {
	derives, err := s.Derives(ctx, of)
	if err != nil || !derives {
		return err
	}
	ids := sorted(principals)
	err = s.db.InTenant(ctx, of, func(tx pgx.Tx) error {
		if err := lockRows(ctx, tx, of, ids); err != nil {
			return err
		}
		var lost []change
		err := database.Send(ctx, tx, database.Statement{
			Args:    []any{of, ids, event},
			Collect: database.All(&lost, pgx.RowToStructByPos[change]), SQL: `
			with lost as (
			  delete from entitlements e
			   where e.tenant_id = $1 and e.principal_id = any ($2)
			     and exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = e.principal_id)
			  returning e.principal_id, e.name),
			recorded as (
			  insert into entitlement_changes (tenant_id, principal_id, name, gained, version, event_id)
			  select $1, l.principal_id, l.name, false, c.version, $3 from lost l
			    join evaluations c on c.tenant_id = $1 and c.principal_id = l.principal_id)
			select principal_id, name, false from lost order by principal_id, name`,
		})
		if err != nil || len(lost) == 0 {
			return err
		}
		read, err := readTypes(ctx, tx, of, ids)
		if err != nil {
			return err
		}
		return writer{tx: tx, of: of, by: Cause{Event: event}}.notify(ctx, byPrincipal(lost), read, derived{})
	})
	if err != nil {
		return fmt.Errorf("withdraw entitlements: %w", err)
	}
	return nil
}

// readTypes returns the types of principals, deleted or not.
func readTypes(ctx context.Context, tx pgx.Tx, of uuid.UUID, ids []uuid.UUID) (map[uuid.UUID]string, error) {
	types := make(map[uuid.UUID]string, len(ids))
	var id uuid.UUID
	var name string
	err := database.Send(ctx, tx, database.Statement{
		SQL:  `select id, type from resources where tenant_id = $1 and id = any ($2)`,
		Args: []any{of, ids}, Collect: database.Each([]any{&id, &name}, func() { types[id] = name }),
	})
	return types, err
}

// change is one entitlement that a principal gained or lost.
type change struct {
	Principal uuid.UUID
	Name      string
	Gained    bool
}

// byPrincipal groups changes, which are in the order of principals.
func byPrincipal(rows []change) []connectors.EntitlementChange {
	var changes []connectors.EntitlementChange
	for _, r := range rows {
		if len(changes) == 0 || changes[len(changes)-1].Principal != r.Principal {
			changes = append(changes, connectors.EntitlementChange{Principal: r.Principal})
		}
		c := &changes[len(changes)-1]
		if r.Gained {
			c.Gained = append(c.Gained, r.Name)
		} else {
			c.Lost = append(c.Lost, r.Name)
		}
	}
	return changes
}
