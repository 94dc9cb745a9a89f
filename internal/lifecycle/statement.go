package lifecycle

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// A change is a row of input, and changes are one statement, and with it one round
// trip, that writes resources, edges, restrictions, audit rows and events (I1, I2). The
// parts are put together as the changes need them, since each costs time even where it
// finds nothing to do. Changes of edges go alone: their parts have the parameters that
// follow those of the input.
const (
	// inputSQL also bounds what the statement waits for a lock; 0 is for ever.
	inputSQL = `
		with input as (select c.* from set_config('lock_timeout', $3, true), change_rows($2) c)`

	insertSQL = `,
		written as (
		  insert into resources (tenant_id, id, type, unique_name, display_name, external_id, active, version, document, extensions, created_at, modified_at, plain)
		  select $1, id, type, name, display, external, active, 1, document, extensions, modified, modified,
		         type <> 'Agent' and restricts is not true from input
		  on conflict (tenant_id, type, unique_name) where deleted_at is null do nothing
		  returning id, version, false as members)`
	insertEdgesSQL = `,
		added as (
		  insert into edges (tenant_id, source_id, attribute, target_id)
		  select $1, w.id, e.attribute, e.target_id from written w` + targets + ` on conflict do nothing)`

	// updateSQL writes only what is the expected version still.
	updateSQL = `,
		written as (
		  update resources r set version = r.version + 1, modified_at = i.modified, deleted_at = case when i.removes then i.modified end,
		         plain = r.plain and i.restricts is not true, unique_name = i.name, display_name = i.display, external_id = i.external,
		         active = i.active, document = i.document, extensions = i.extensions
		    from input i
		   where r.tenant_id = $1 and r.id = i.id and r.deleted_at is null and r.version = i.expected
		  returning r.id, r.version, false as members)`

	// Where edges change, the row is locked by now; it is looked at before anything
	// is written: if it is not the expected version any more, nothing is.
	currentSQL = `,
		current as (
		  select i.* from input i join resources r on r.tenant_id = $1 and r.id = i.id and r.deleted_at is null and r.version = coalesce(i.expected, r.version))`
	updateEdgesSQL = `,
		dropped as (
		  delete from edges e using current c, unnest($%[3]d::text[], $%[4]d::uuid[]) d (attribute, target_id)
		   where e.tenant_id = $1 and e.source_id = c.id and e.attribute = d.attribute and e.target_id = d.target_id
		  returning 1),
		cleared as (
		  delete from edges e using current c
		   where $%[5]d::boolean and e.tenant_id = $1 and e.source_id = c.id and e.attribute = 'members' and e.target_id <> all ($%[2]d::uuid[])
		  returning 1),
		added as (
		  insert into edges (tenant_id, source_id, attribute, target_id)
		  select $1, w.id, e.attribute, e.target_id from current w` + targets + ` on conflict do nothing
		  returning 1),
		touched as (
		  select exists (select 1 from dropped) or exists (select 1 from cleared) or exists (select 1 from added) as edges)`
	updateWithEdgesSQL = `,
		written as (
		  update resources r set version = r.version + 1, modified_at = i.modified, plain = r.plain and i.restricts is not true,
		         unique_name = case when i.columns then i.name else r.unique_name end,
		         display_name = case when i.columns then i.display else r.display_name end,
		         external_id = case when i.columns then i.external else r.external_id end,
		         active = case when i.columns then i.active else r.active end,
		         document = case when i.columns then i.document else r.document end,
		         extensions = case when i.columns then i.extensions else r.extensions end
		    from current i, touched
		   where r.tenant_id = $1 and r.id = i.id and (i.columns or touched.edges)
		  returning r.id, r.version, touched.edges and r.type = 'Group' as members)`

	targets = ` cross join unnest($%[1]d::text[], $%[2]d::uuid[]) e (attribute, target_id)
		    join resources t on t.tenant_id = $1 and t.id = e.target_id and t.deleted_at is null`

	// uniqueSQL keeps the values that a tenant's schemas declare unique. Only types with
	// such schemas pay for it, and deletions, which free the values.
	uniqueSQL = `,
		freed as (
		  delete from unique_values u using written w
		   where u.tenant_id = $1 and u.resource_id = w.id
		     and (u.attribute, u.value) not in (select * from unnest($%[1]d::text[], $%[2]d::text[]))),
		taken as (
		  insert into unique_values (tenant_id, type, attribute, value, resource_id)
		  select $1, i.type, n.attribute, n.value, i.id from written join input i using (id) cross join unnest($%[1]d::text[], $%[2]d::text[]) n (attribute, value)
		   where not exists (select 1 from unique_values u
		     where u.tenant_id = $1 and u.type = i.type and u.attribute = n.attribute and u.value = n.value and u.resource_id = i.id))`

	// What follows from the rows that were written.
	meantSQL = `,
		meant as (
		  select w.id, w.version, i.type, i.trigger, i.actor, i.event, i.restricts, i.cause, i.lifts,
		         w.members, case when w.members then i.if_members else i.kind end as kind,
		         i.changed || case when w.members then array['members'] else '{}' end as changed
		    from written w join input i on i.id = w.id)`
	eventSQL = `,
		event as (
		  insert into lifecycle_events (tenant_id, id, kind, principal_id, principal_type, trigger, actor, changed, workflow_id, due_at)
		  select $1, event, kind, id, type, trigger, actor, changed, kind || '/' || $1 || '/' || id || '/' || version, now() + $%[1]d::interval
		    from meant where kind <> ''
		  returning principal_id as id, sequence, workflow_id)`
	restrictSQL = `,
		restricted as (
		  insert into restrictions (tenant_id, principal_id, cause, event_id)
		  select $1, id, cause, case when kind <> '' then event end from meant where restricts
		  on conflict (tenant_id, principal_id) do update
		     set cause = excluded.cause, event_id = coalesce(excluded.event_id, restrictions.event_id)
		  returning principal_id as id, since)`
	liftSQL = `,
		lifted as (
		  delete from restrictions x using meant m where x.tenant_id = $1 and x.principal_id = m.id and m.lifts)`
	auditSQL = `,
		audited as (
		  insert into changes (tenant_id, resource_id, resource_type, version, trigger, actor, changed)
		  select $1, id, type, version, trigger, actor, changed from meant)`
)

// orphanSQL restricts the agents that the change of an agent or a group, or of a
// group within a group, has left without an active owner, and makes each a leaver: had the group forgotten
// its last member first and deactivated that person then, nobody would find them.
const orphanSQL = `
	with recursive above (id) as (
	  select $2::uuid
	  union
	  select e.source_id from above join edges e on e.tenant_id = $1 and e.target_id = above.id and e.attribute = 'members'),
	orphaned as (
	  update resources a set active = false, document = a.document || '{"active": false}', version = a.version + 1, modified_at = now()
	   where a.tenant_id = $1 and a.type = 'Agent' and a.deleted_at is null
	     -- As an array, which the index takes: how many agents there are must not count.
	     and a.id = any (array(select $2::uuid union select o.source_id from above
	          join edges o on o.tenant_id = $1 and o.target_id = above.id and o.attribute = 'owners'))
	     and a.active is distinct from false -- nor by somebody else while this waited
	     and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id = a.id)
	     and not has_active_owner($1, a.id, null)
	  returning a.id, a.version),
	event as (
	  insert into lifecycle_events (tenant_id, id, kind, principal_id, principal_type, trigger, actor, workflow_id, due_at)
	  select $1, gen_random_uuid(), 'leaver', id, 'Agent', $3, $4, 'leaver/' || $1 || '/' || id || '/' || version, now() + $5 from orphaned
	  returning id, sequence, principal_id, workflow_id),
	restricted as (
	  insert into restrictions (tenant_id, principal_id, cause, event_id) select $1, principal_id, 'orphaned', id from event),
	audited as (
	  insert into changes (tenant_id, resource_id, resource_type, version, trigger, actor, changed)
	  select $1, id, 'Agent', version, $3, $4, array['active'] from orphaned)
	select id, sequence, principal_id, workflow_id from event`

// builder puts a statement together.
type builder struct {
	parts []string
	args  []any
}

// newBuilder begins with the rows of input, in one order, so that two commits seldom wait
// for each other: of new ones by what must be unique. patience bounds what the statement waits for a lock; 0 is
// for ever.
func newBuilder(tenant uuid.UUID, patience time.Duration, rows []row) *builder {
	slices.SortFunc(rows, func(a, b row) int { return cmp.Or(strings.Compare(a.Name, b.Name), bytes.Compare(a.ID[:], b.ID[:])) })
	return &builder{parts: []string{inputSQL}, args: []any{tenant, encode(rows), patience.String()}}
}

// add appends a part whose verbs %[1]d, %[2]d … stand for its own parameters.
func (b *builder) add(part string, args ...any) {
	if len(args) > 0 {
		numbers := make([]any, len(args))
		for i := range args {
			numbers[i] = len(b.args) + i + 1
		}
		part = fmt.Sprintf(part, numbers...)
	}
	b.parts, b.args = append(b.parts, part), append(b.args, args...)
}

func (b *builder) statement(collect func(pgx.Rows) error) database.Statement {
	return database.Statement{SQL: strings.Join(b.parts, ""), Args: b.args, Collect: collect}
}

// addConsequences adds what follows from the rows that were meant, with events and changes
// of restrictions where any may come of them. It returns the columns of an event's
// sequence and workflow and of a restriction's beginning, and their joins to meant m.
func (b *builder) addConsequences(events, restricts, lifts bool) (columns, joins string) {
	event, since := "null::bigint, null::text", "null::timestamptz"
	if events {
		b.add(eventSQL, grace)
		event, joins = "e.sequence, e.workflow_id", " left join event e on e.id = m.id"
	}
	if restricts {
		b.add(restrictSQL)
		since, joins = "x.since", joins+" left join restricted x on x.id = m.id"
	}
	if lifts {
		b.add(liftSQL)
	}
	b.add(auditSQL)
	return event + ", " + since, joins
}

// write begins the statement that stores changes: one, or several that need no part of
// their own.
func write(tenant uuid.UUID, patience time.Duration, changes []*change) *builder {
	rows := make([]row, len(changes))
	for i, c := range changes {
		rows[i] = c.row()
	}
	b := newBuilder(tenant, patience, rows)
	b.addRows(changes[0])
	b.add(meantSQL)
	columns, joins := b.addConsequences(
		slices.ContainsFunc(changes, func(c *change) bool { return c.kind != "" || c.ifMembers != "" }),
		slices.ContainsFunc(changes, func(c *change) bool { return c.restrict }),
		slices.ContainsFunc(changes, func(c *change) bool { return c.lift }))
	b.add(" select m.id, m.version, m.members, " + columns + " from meant m" + joins)
	return b
}

// addRows adds the parts that write resources, their edges and their unique values. only
// is the change, or one of several that have neither.
func (b *builder) addRows(only *change) {
	edges := &only.edges
	switch {
	case only.isNew:
		b.add(insertSQL)
		if edges.touches() {
			b.add(insertEdgesSQL, edges.addAttributes, edges.addTargets)
		}
	case edges.touches():
		b.add(currentSQL)
		b.add(updateEdgesSQL, edges.addAttributes, edges.addTargets, edges.dropAttributes, edges.dropTargets, edges.clearMembers)
		b.add(updateWithEdgesSQL)
	default:
		b.add(updateSQL)
	}
	if only.ownsValues() {
		names, values := make([]string, 0, len(only.after.Unique)), make([]string, 0, len(only.after.Unique))
		for name, value := range only.after.Unique {
			names, values = append(names, name), append(values, value)
		}
		b.add(uniqueSQL, names, values)
	}
}
