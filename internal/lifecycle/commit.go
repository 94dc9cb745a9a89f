package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// change is one change of a resource with what it means, ready to commit.
type change struct {
	tenant  uuid.UUID
	after   *directory.Resource
	by      Cause
	event   uuid.UUID // the id of the event, if it comes to one
	changed []string  // names of changed attributes, without members
	decision
	// ifMembers is the kind of event where the change of members turns out to
	// change any.
	ifMembers Kind
	edges     edgeChange
	mayOrphan bool
	// locks: edges are compared with what is stored, so nobody else may write them.
	locks bool
	// writesColumns: the row's own columns are written, not only its edges.
	writesColumns bool
}

// edgeChange is what becomes of a resource's edges.
type edgeChange struct {
	addAttributes, dropAttributes []string
	addTargets, dropTargets       []uuid.UUID
	clearMembers                  bool
}

func (c *edgeChange) add(attribute string, targets ...uuid.UUID) {
	for _, t := range targets {
		c.addAttributes, c.addTargets = append(c.addAttributes, attribute), append(c.addTargets, t)
	}
}

func (c *edgeChange) drop(attribute string, targets ...uuid.UUID) {
	for _, t := range targets {
		c.dropAttributes, c.dropTargets = append(c.dropAttributes, attribute), append(c.dropTargets, t)
	}
}

// touches tells whether any edge may change.
func (c *edgeChange) touches() bool {
	return c.clearMembers || len(c.addTargets) > 0 || len(c.dropTargets) > 0
}

// edgesBetween is the difference of the edges, so that a change of one member
// of a large group touches one row. before is nil for a new resource.
func edgesBetween(before, after *directory.Resource) edgeChange {
	// Lists that are empty, not null: SQL compares with them.
	c := edgeChange{addAttributes: []string{}, dropAttributes: []string{}, addTargets: []uuid.UUID{}, dropTargets: []uuid.UUID{}}
	for _, attribute := range []string{directory.EdgeOwners, directory.EdgeParent} {
		var had map[uuid.UUID]bool
		if before != nil {
			had = before.Targets(attribute)
		}
		has := after.Targets(attribute)
		for target := range has {
			if !had[target] {
				c.add(attribute, target)
			}
		}
		for target := range had {
			if !has[target] {
				c.drop(attribute, target)
			}
		}
	}
	c.clearMembers = after.Members.Clear
	c.add(directory.EdgeMembers, after.Members.Added()...)
	c.drop(directory.EdgeMembers, after.Members.Removed()...)
	return c
}

// committed is what PostgreSQL made of a change.
type committed struct {
	version int64
	event   *Event
	since   *time.Time // of the restriction that the change made
	orphans []*Event
}

// errOutdated says that the resource is not any more what the change was made for.
var errOutdated = errors.New("the resource has changed meanwhile")

// A change is one statement, and with it one round trip, that writes resource,
// edges, restriction, audit row and event (I1, I2). The parts are put together
// as the change needs them: $1 to $13 say what the change means, $14 to $20 are the
// columns of the resource; those of edges and unique values follow.
const (
	insertSQL = `
		with written as (
		  insert into resources (tenant_id, id, type, unique_name, display_name, external_id, active, version, document, extensions, created_at, modified_at, plain)
		  values ($1, $2, $3, nullif($14, ''), nullif($15, ''), nullif($16, ''), $17, 1, $18, $19, $20, $20, $3 <> 'Agent' and not $11)
		  returning version, %t as members)`
	insertEdgesSQL = `,
		added as (
		  insert into edges (tenant_id, source_id, attribute, target_id)
		  select $1, $2, w.attribute, w.target_id from written` + targets + ` on conflict do nothing)`

	// updateSQL writes only what is the expected version still.
	updateSQL = `
		with written as (
		  update resources r set version = version + 1, modified_at = $20::timestamptz, deleted_at = case when $22 then $20::timestamptz end,
		         plain = plain and not $11, unique_name = nullif($14, ''), display_name = nullif($15, ''), external_id = nullif($16, ''),
		         active = $17, document = $18, extensions = $19
		   where tenant_id = $1 and id = $2 and deleted_at is null and version = $21
		  returning version, false as members)`

	// Where edges change, the row is locked by now; it is looked at before anything
	// is written: if it is not the expected version any more, nothing is.
	currentSQL = `
		with current as (
		  select version from resources
		   where tenant_id = $1 and id = $2 and deleted_at is null and ($21::bigint is null or version = $21))`
	updateEdgesSQL = `,
		dropped as (
		  delete from edges e using current, unnest($%[3]d::text[], $%[4]d::uuid[]) d (attribute, target_id)
		   where e.tenant_id = $1 and e.source_id = $2 and e.attribute = d.attribute and e.target_id = d.target_id
		  returning 1),
		cleared as (
		  delete from edges e using current
		   where $%[5]d::boolean and e.tenant_id = $1 and e.source_id = $2 and e.attribute = 'members' and e.target_id <> all ($%[2]d::uuid[])
		  returning 1),
		added as (
		  insert into edges (tenant_id, source_id, attribute, target_id)
		  select $1, $2, w.attribute, w.target_id from current` + targets + ` on conflict do nothing
		  returning 1),
		touched as (
		  select exists (select 1 from dropped) or exists (select 1 from cleared) or exists (select 1 from added) as edges)`
	updateWithEdgesSQL = `,
		written as (
		  update resources r set version = r.version + 1, modified_at = $20::timestamptz, plain = r.plain and not $11,
		         unique_name = case when $22 then nullif($14, '') else r.unique_name end,
		         display_name = case when $22 then nullif($15, '') else r.display_name end,
		         external_id = case when $22 then nullif($16, '') else r.external_id end,
		         active = case when $22 then $17 else r.active end,
		         document = case when $22 then $18 else r.document end,
		         extensions = case when $22 then $19 else r.extensions end
		    from current, touched
		   where r.tenant_id = $1 and r.id = $2 and ($22 or touched.edges)
		  returning r.version, touched.edges and r.type = 'Group' as members)`

	targets = ` cross join unnest($%[1]d::text[], $%[2]d::uuid[]) w (attribute, target_id)
		    join resources t on t.tenant_id = $1 and t.id = w.target_id and t.deleted_at is null`

	// uniqueSQL keeps the values that a tenant's schemas declare unique. Only
	// types with such schemas pay for it.
	uniqueSQL = `,
		freed as (
		  delete from unique_values u using written
		   where u.tenant_id = $1 and u.resource_id = $2
		     and (u.attribute, u.value) not in (select * from unnest($%[1]d::text[], $%[2]d::text[]))),
		taken as (
		  insert into unique_values (tenant_id, type, attribute, value, resource_id)
		  select $1, $3, n.attribute, n.value, $2 from written cross join unnest($%[1]d::text[], $%[2]d::text[]) n (attribute, value)
		   where not exists (select 1 from unique_values u
		     where u.tenant_id = $1 and u.type = $3 and u.attribute = n.attribute and u.value = n.value and u.resource_id = $2))`

	// What follows from the row that was written: each part only where the change
	// means it, since each costs time even where it finds nothing to do. The
	// parameters of parts that are left out are named, and dropped, here.
	meantSQL = `,
		meant as (
		  select w.version, case when w.members then $8 else $7 end as kind,
		         $6::text[] || case when w.members then array['members'] else '{}' end as changed
		    from written w cross join (select $9::uuid, $10::interval, $11::boolean, $12::text, $13::boolean) unused)`
	eventSQL = `,
		event as (
		  insert into lifecycle_events (tenant_id, id, kind, principal_id, principal_type, trigger, actor, changed, workflow_id, due_at)
		  select $1, $9, kind, $2, $3, $4, $5, changed, kind || '/' || $1 || '/' || $2 || '/' || version, now() + $10
		    from meant where kind <> ''
		  returning sequence, kind, changed, workflow_id)`
	restrictSQL = `,
		restricted as (
		  insert into restrictions (tenant_id, principal_id, cause, event_id)
		  select $1, $2, $12, case when $13 then $9::uuid end from written
		  on conflict (tenant_id, principal_id) do update
		     set cause = excluded.cause, event_id = coalesce(excluded.event_id, restrictions.event_id)
		  returning since)`
	liftSQL = `,
		lifted as (
		  delete from restrictions x using written where x.tenant_id = $1 and x.principal_id = $2)`
	auditSQL = `,
		audited as (
		  insert into changes (tenant_id, resource_id, resource_type, version, trigger, actor, changed)
		  select $1, $2, $3, version, $4, $5, changed from meant)`
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
	     and (a.id = $2 or a.id in (select o.source_id from above
	          join edges o on o.tenant_id = $1 and o.target_id = above.id and o.attribute = 'owners'))
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

// insert commits a new resource. Error: directory.ErrNameTaken.
func (w *Writer) insert(ctx context.Context, c change) (committed, error) {
	b := builder{args: c.args()}
	c.writesColumns = true
	b.add(fmt.Sprintf(insertSQL, c.after.Type == directory.TypeGroup && len(c.edges.addTargets) > 0))
	if c.edges.touches() {
		b.add(insertEdgesSQL, c.edges.addAttributes, c.edges.addTargets)
	}
	return w.commit(ctx, c, b)
}

// removal tells whether an update is a deletion.
type removal bool

// update commits a change of a resource that still has that version, or with
// version 0 any. A removal makes it a tombstone: its name is free again, its id
// is not, and its edges stay, since the cascade walks them.
// Errors: errOutdated, directory.ErrNameTaken.
func (w *Writer) update(ctx context.Context, c change, version int64, remove removal) (committed, error) {
	var expected *int64
	if version > 0 {
		expected = &version
	}
	b := builder{sql: updateSQL, args: append(c.args(), expected, bool(remove))}
	c.writesColumns = len(c.changed) > 0 || bool(remove)
	if c.edges.touches() {
		c.locks = true
		b = builder{sql: currentSQL, args: append(c.args(), expected, c.writesColumns)}
		b.add(updateEdgesSQL, c.edges.addAttributes, c.edges.addTargets, c.edges.dropAttributes, c.edges.dropTargets, c.edges.clearMembers)
		b.add(updateWithEdgesSQL)
	}
	// Whoever gained or lost edges, went, or came back may leave agents without an owner.
	c.mayOrphan = c.after.Type != directory.TypeUser && (c.edges.touches() || bool(remove) || c.lift)
	return w.commit(ctx, c, b)
}

// builder puts a statement together.
type builder struct {
	sql  string
	args []any
}

// add appends a part whose verbs %[1]d, %[2]d … stand for its own parameters.
func (b *builder) add(part string, args ...any) {
	numbers := make([]any, len(args))
	for i := range args {
		numbers[i] = len(b.args) + i + 1
	}
	if len(args) > 0 {
		part = fmt.Sprintf(part, numbers...)
	}
	b.sql, b.args = b.sql+part, append(b.args, args...)
}

func (w *Writer) commit(ctx context.Context, c change, b builder) (committed, error) {
	b.sql += meantSQL
	event, since := "null::bigint, null::text, null::text[], null::text", "null::timestamptz"
	from := " from written w"
	if c.kind != "" || c.ifMembers != "" {
		b.sql, event, from = b.sql+eventSQL, "e.sequence, e.kind, e.changed, e.workflow_id", from+" left join event e on true"
	}
	if c.restrict {
		b.sql, since, from = b.sql+restrictSQL, "x.since", from+" left join restricted x on true"
	}
	if c.lift {
		b.sql += liftSQL
	}
	b.sql += auditSQL
	if c.after.Unique != nil && c.writesColumns {
		names, values := make([]string, 0, len(c.after.Unique)), make([]string, 0, len(c.after.Unique))
		for name, value := range c.after.Unique {
			names, values = append(names, name), append(values, value)
		}
		b.add(uniqueSQL, names, values)
	}
	var done committed
	var statements []database.Statement
	if c.locks {
		// The lock comes first, in a statement of its own: what is read after it is
		// what the previous holder committed.
		statements = append(statements, database.Statement{
			SQL: `select 1 from resources where tenant_id = $1 and id = $2 for no key update`, Args: []any{c.tenant, c.after.ID}, Collect: drain,
		})
	}
	statements = append(statements, database.Statement{SQL: b.sql + " select w.version, " + event + ", " + since + from, Args: b.args, Collect: func(rows pgx.Rows) (err error) {
		done, err = pgx.CollectExactlyOneRow(rows, c.scan)
		if errors.Is(err, pgx.ErrNoRows) {
			return errOutdated
		}
		return err
	}})
	if c.mayOrphan {
		statements = append(statements, c.orphans(&done))
	}
	err := database.Together(ctx, w.db, c.tenant, statements...)
	if database.IsUniqueViolation(err, "resources_unique_name") || database.IsUniqueViolation(err, "unique_values_pkey") {
		return committed{}, directory.ErrNameTaken
	}
	return done, err
}

func drain(rows pgx.Rows) error {
	_, err := database.Nothing(rows)
	return err
}

func (c change) args() []any {
	r := c.after
	return []any{
		c.tenant, r.ID, r.Type, c.by.Trigger, c.by.Actor, orEmpty(c.changed), string(c.kind), string(c.ifMembers), c.event, grace,
		c.restrict, c.by.restriction(), c.kind != "",
		r.UniqueName, r.Display, r.ExternalID, r.Active, r.Document, orEmpty(r.Extensions), r.Modified,
	}
}

func (c change) scan(row pgx.CollectableRow) (committed, error) {
	var done committed
	var sequence *int64
	var kind *Kind
	var changed []string
	var workflow *string
	err := row.Scan(&done.version, &sequence, &kind, &changed, &workflow, &done.since)
	if err == nil && sequence != nil {
		done.event = &Event{
			Tenant: c.tenant, ID: c.event, Sequence: *sequence, Kind: *kind, Principal: c.after.ID, PrincipalType: c.after.Type,
			Trigger: c.by.Trigger, Actor: c.by.Actor, Changed: changed, WorkflowID: *workflow, CreatedAt: time.Now(),
		}
	}
	return done, err
}

func (c change) orphans(into *committed) database.Statement {
	return database.Statement{
		SQL: orphanSQL, Args: []any{c.tenant, c.after.ID, TriggerOrphaned, c.by.Actor, grace},
		Collect: func(rows pgx.Rows) error {
			e := Event{Tenant: c.tenant, Kind: Leaver, PrincipalType: directory.TypeAgent, Trigger: TriggerOrphaned, Actor: c.by.Actor, CreatedAt: time.Now()}
			_, err := pgx.ForEachRow(rows, []any{&e.ID, &e.Sequence, &e.Principal, &e.WorkflowID}, func() error {
				event := e
				into.orphans = append(into.orphans, &event)
				return nil
			})
			return err
		},
	}
}

// orEmpty keeps a nil slice from becoming SQL's null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
