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

	"github.com/leaverhq/leaver/internal/mapping"
)

// Cause is the lifecycle event by which entitlements are computed.
type Cause struct {
	Event uuid.UUID
	// Ends: the event's own workflow ends what was granted under what is lost.
	// Otherwise each principal that has something to end becomes a mover of its own.
	Ends bool
}

// Change is what a principal gained and lost.
type Change struct {
	Principal uuid.UUID `json:"principal"`
	Gained    []string  `json:"gained,omitempty"`
	Lost      []string  `json:"lost,omitempty"`
}

// MaxBatch bounds how many principals are computed in one transaction.
const MaxBatch = 250

// Compute derives what principals are entitled to anew, and stores the difference
// with what it means: what was granted under something lost is being ended from the
// commit on, by a mover event. Of several computations of one principal the last to
// run has seen every change that any of them was for. Where the tenant has no rules
// it does nothing.
func (s *Store) Compute(ctx context.Context, of uuid.UUID, principals []uuid.UUID, by Cause) ([]Change, error) {
	var changes []Change
	err := s.db.InTenant(ctx, of, func(tx pgx.Tx) error {
		ids := slices.SortedFunc(slices.Values(principals), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
		// No row, no lock: what rules there are is asked for again behind it.
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
		changes, err = write(ctx, tx, of, ids, derive(rules, read), version, by)
		return err
	})
	if errors.Is(err, ErrNoMapping) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("compute entitlements: %w", err)
	}
	return changes, nil
}

// lock takes the principals' rows, in one order for all. What follows is planned for
// the tables as they are: a plan of when they were small would read them whole.
func lock(ctx context.Context, tx pgx.Tx, of uuid.UUID, ids []uuid.UUID) error {
	if _, err := tx.Exec(ctx, `set local plan_cache_mode = force_custom_plan`); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `
		insert into computations (tenant_id, principal_id) select $1, p from unnest($2::uuid[]) p
		on conflict do nothing`, of, ids); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `
		select 1 from computations where tenant_id = $1 and principal_id = any ($2) order by principal_id for update`, of, ids); err != nil {
		return err
	}
	// Behind the lock, and before anything is read: what is doubted later is computed later.
	_, err := tx.Exec(ctx, `delete from doubts where tenant_id = $1 and principal_id = any ($2)`, of, ids)
	return err
}

// principal is whom rules are applied to, and whether anything applies.
type principal struct {
	mapping.Principal
	here bool // alive, and not restricted
}

// readPrincipals reads documents and groups, of whoever is deleted neither.
func readPrincipals(ctx context.Context, tx pgx.Tx, of uuid.UUID, ids []uuid.UUID) ([]principal, error) {
	rows, err := tx.Query(ctx, `
		select r.id, r.type, r.document, not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = r.id)
		  from resources r where r.tenant_id = $1 and r.id = any ($2) and r.type in ('User', 'Agent') and r.deleted_at is null order by r.id`, of, ids)
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

// groupsSQL finds the groups of many principals, directly or through others; as
// groups_of does of one. `union` ends circles; `offset 0` keeps each step a look into
// an index: planners think of tables that have just grown as small, and of recursions
// as large enough to read all of a directory.
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

// groupsAbove leads from p to the groups g that it is a member of.
const groupsAbove = `
	   cross join lateral (select e.source_id from edges e where e.tenant_id = $1 and e.target_id = p.id and e.attribute = 'members' offset 0) e
	   cross join lateral (select g.id from resources g where g.tenant_id = $1 and g.id = e.source_id and g.deleted_at is null offset 0) g`

// derived is what principals are entitled to, as columns.
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
			encoded, _ := json.Marshal(sources) // texts and ids encode
			d.principals, d.names, d.sources = append(d.principals, p.ID), append(d.names, name), append(d.sources, string(encoded))
		}
	}
	return d
}

// writeGroups stores which groups the computation met, of the restricted too: who
// has entered or left one since is found by comparing.
func writeGroups(ctx context.Context, tx pgx.Tx, of uuid.UUID, ids []uuid.UUID, read []principal) error {
	principals, groups, directs := []uuid.UUID{}, []uuid.UUID{}, []bool{}
	for _, p := range read {
		for _, g := range p.Groups {
			principals, groups, directs = append(principals, p.ID), append(groups, g.ID), append(directs, g.Direct)
		}
	}
	_, err := tx.Exec(ctx, `
		with met as materialized (select * from unnest($3::uuid[], $4::uuid[], $5::boolean[]) m (principal_id, group_id, direct)),
		gone as (
		  delete from computed_groups c where c.tenant_id = $1 and c.principal_id = any ($2)
		     and not exists (select 1 from met where met.principal_id = c.principal_id and met.group_id = c.group_id))
		insert into computed_groups as c (tenant_id, principal_id, group_id, direct) select $1, principal_id, group_id, direct from met
		on conflict (tenant_id, principal_id, group_id) do update set direct = excluded.direct where c.direct <> excluded.direct`,
		of, ids, principals, groups, directs)
	return err
}

// writeSQL stores the difference: entitlements, the audit trail, and for what was
// granted under something that is not held the mover events that end it. What
// somebody restricted holds is a leaver's.
const writeSQL = `
	with wanted as materialized (
	  select * from unnest($3::uuid[], $4::text[], $5::jsonb[]) w (principal_id, name, sources)),
	lost as (
	  delete from entitlements e where e.tenant_id = $1 and e.principal_id = any ($2)
	     and not exists (select 1 from wanted w where w.principal_id = e.principal_id and w.name = e.name)
	  returning e.principal_id, e.name),
	stored as (
	  insert into entitlements as e (tenant_id, principal_id, name, sources) select $1, principal_id, name, sources from wanted
	  on conflict (tenant_id, principal_id, name) do update set sources = excluded.sources where e.sources is distinct from excluded.sources
	  returning e.principal_id, e.name, xmax = 0 as new),
	changed as (
	  select principal_id, name, true gained from stored where new union all select principal_id, name, false from lost),
	told as (
	  insert into entitlement_changes (tenant_id, principal_id, name, gained, version, event_id)
	  select $1, principal_id, name, gained, $6, nullif($7, '00000000-0000-0000-0000-000000000000'::uuid) from changed),
	dated as (
	  update computations set version = $6, computed_at = now() where tenant_id = $1 and principal_id = any ($2)),
	ended as materialized (
	  select i.id, i.principal_id from inventory i
	   where i.tenant_id = $1 and i.principal_id = any ($2) and i.state = 'live' and i.entitlement ~ '^(team|role|scope):.'
	     and not exists (select 1 from wanted w where w.principal_id = i.principal_id and w.name = i.entitlement)
	     and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = i.principal_id)),
	moves as materialized (
	  select p.principal_id, r.type, r.version, gen_random_uuid() id, nextval('lifecycle_sequence') sequence
	    from (select distinct principal_id from ended where not $8::boolean) p
	    join resources r on r.tenant_id = $1 and r.id = p.principal_id),
	moved as (
	  insert into lifecycle_events (tenant_id, id, sequence, kind, principal_id, principal_type, trigger, actor, changed, workflow_id, due_at, ends)
	  select $1, id, sequence, 'mover', principal_id, type, $9, coalesce((select actor from lifecycle_events where tenant_id = $1 and id = $7), 'leaver'),
	         array['entitlements'], 'mover/' || $1 || '/' || principal_id || '/' || version || '.' || sequence, now(), true from moves),
	own as (
	  update lifecycle_events set ends = true where tenant_id = $1 and id = $7 and $8 and exists (select 1 from ended)),
	marked as (
	  update inventory i set state = 'ending', reason = 'its entitlement is lost', event_id = coalesce(m.id, $7), updated_at = now()
	    from ended d left join moves m on m.principal_id = d.principal_id
	   where i.tenant_id = $1 and i.id = d.id and i.state = 'live')
	select principal_id, name, gained from changed order by principal_id, name`

// TriggerEntitlement is the trigger of the move of a principal who lost an
// entitlement by a change of a group or of the rules.
const TriggerEntitlement = "entitlement-lost"

func write(ctx context.Context, tx pgx.Tx, of uuid.UUID, ids []uuid.UUID, d derived, version int, by Cause) ([]Change, error) {
	rows, err := tx.Query(ctx, writeSQL, of, ids, d.principals, d.names, d.sources, version, by.Event, by.Ends, TriggerEntitlement)
	if err != nil {
		return nil, err
	}
	return collectChanges(rows)
}

// collectChanges reads rows of principal, name and whether it was gained, in the
// order of principals.
func collectChanges(rows pgx.Rows) ([]Change, error) {
	var changes []Change
	var id uuid.UUID
	var name string
	var gained bool
	_, err := pgx.ForEachRow(rows, []any{&id, &name, &gained}, func() error {
		if len(changes) == 0 || changes[len(changes)-1].Principal != id {
			changes = append(changes, Change{Principal: id})
		}
		c := &changes[len(changes)-1]
		if gained {
			c.Gained = append(c.Gained, name)
		} else {
			c.Lost = append(c.Lost, name)
		}
		return nil
	})
	return changes, err
}
