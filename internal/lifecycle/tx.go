package lifecycle

import (
	"context"
	_ "embed"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/tracing"
	"github.com/leaverhq/leaver/scim/filter"
)

// Cause is the trigger and the actor of a change.
type Cause struct {
	Trigger Trigger
	Actor   string // e.g. scim-token/<id>
	Trace   string // see Event
	// Ignored lists the ignored parts of the request for the audit trail. It contains no
	// attribute values except the IDs of members.
	Ignored []string
}

// NewCause returns the cause of a change by a request, with the span of its context.
func NewCause(ctx context.Context, trigger Trigger, actor string) Cause {
	return Cause{Trigger: trigger, Actor: actor, Trace: tracing.Parent(ctx)}
}

// restriction returns the cause of the restriction that a change creates.
func (c Cause) restriction() string {
	if c.Trigger == TriggerDelete {
		return "deleted"
	}
	return "deactivated"
}

// Tx queues the writes of one tenant's transaction. Only its methods write resources,
// edges, restrictions, audit rows and lifecycle events.
type Tx struct {
	on     database.Batcher
	tenant uuid.UUID
	by     Cause
	queue  []database.Statement
	events []*Event // emitted; dispatched after the commit
	// hasRules and hasStreams are false if the tenant is known to have none.
	hasRules, hasStreams bool
}

// In returns a Tx on a transaction that the caller commits.
func In(on database.Batcher, tenant uuid.UUID, by Cause) *Tx {
	return &Tx{on: on, tenant: tenant, by: by, hasRules: true, hasStreams: true}
}

// inLocked returns a Tx for the change of a locked resource.
func inLocked(on database.Batcher, tenant uuid.UUID, by Cause, r *directory.Locked) *Tx {
	// The flags of an outdated read may be outdated too.
	return &Tx{on: on, tenant: tenant, by: by, hasRules: r.HasRules || r.Outdated, hasStreams: r.HasStreams || r.Outdated}
}

// MatchMembers returns the members of a group, and the resources that are about to be
// added to it, that meet a condition.
func (tx *Tx) MatchMembers(ctx context.Context, group uuid.UUID, added []uuid.UUID,
	where filter.Condition,
) ([]uuid.UUID, error) {
	return directory.MatchMembers(ctx, tx.on, tx.tenant, group, added, where)
}

// send sends the queued statements, followed by statements, in one round trip.
func (tx *Tx) send(ctx context.Context, statements ...database.Statement) error {
	return database.Send(ctx, tx.on, append(tx.take(), statements...)...)
}

// take returns the queued statements and empties the queue.
func (tx *Tx) take() []database.Statement {
	queued := tx.queue
	tx.queue = nil
	return queued
}

func (tx *Tx) add(sql string, args ...any) {
	tx.queue = append(tx.queue, database.Statement{SQL: sql, Args: args})
}

// The statements that write a resource together with its restriction and its event (I1, I2).
var (
	//go:embed create.sql
	createSQL string
	//go:embed save.sql
	saveSQL string
	//go:embed events.sql
	eventsSQL string
)

// change is one change of a resource with the decision about it.
type change struct {
	after   *directory.Resource // as it is stored, with its version
	changed []string
	edges   edgeChange
	removes bool
	decision

	event *Event     // nil if there is none
	since *time.Time // start of the restriction that the change created, else nil
}

// create queues the insert of a new resource.
func (tx *Tx) create(c *change) error {
	err := tx.write(createSQL, c)
	tx.setNames(c, true)
	return err
}

// save queues the update of a changed resource, whose row is locked.
func (tx *Tx) save(c *change) error {
	err := tx.write(saveSQL, c, c.removes, c.lift)
	tx.setNames(c, false)
	return err
}

// write queues sql, the edges, the unique values, and the invalidations and signals of the
// event. create.sql and save.sql share $1 to $23; others are the parameters from $24.
func (tx *Tx) write(sql string, c *change, others ...any) error {
	r, restriction, workflow := c.after, "", ""
	if c.restrict {
		restriction = tx.by.restriction()
	}
	event := Event{ID: newID()}
	if c.kind != "" {
		event = tx.newEvent(c.kind, event.ID, r.ID, r.Type, workflowID(c.kind, tx.tenant, r.ID, r.Version, 0), c.changed)
		c.event, workflow = &event, event.WorkflowID
		tx.events = append(tx.events, c.event)
	}
	tx.queue = append(tx.queue, database.Statement{
		SQL: sql,
		Args: append([]any{
			tx.tenant, r.ID, r.Type, r.UniqueName, r.Display, r.ExternalID, r.Active, r.ValidUntil, r.Version,
			r.Document, orEmpty(r.Extensions), r.Modified,
			tx.by.Trigger, tx.by.Actor, c.changed, restriction, event.ID, c.kind, workflow, grace, r.Folded,
			orEmpty(tx.by.Ignored), event.Trace,
		}, others...),
		Collect: database.Fields(&c.since, &event.Sequence),
	})
	tx.setEdges(c)
	tx.setUnique(c)
	if c.event == nil {
		return nil
	}
	return tx.follow(r, c.event)
}

// maxIgnored bounds how many ignored parts of a request an audit row lists.
const maxIgnored = 100

// ignore records an ignored part of the request.
func (tx *Tx) ignore(part string) {
	switch n := len(tx.by.Ignored); {
	case n < maxIgnored:
		tx.by.Ignored = append(tx.by.Ignored, part)
	case n == maxIgnored:
		tx.by.Ignored = append(tx.by.Ignored, "and more")
	}
}

// recordIgnored queues an audit row for a request that changed nothing, if a part of it was
// ignored.
func (tx *Tx) recordIgnored(r *directory.Resource) {
	if len(tx.by.Ignored) > 0 {
		tx.add(`
			insert into changes (tenant_id, resource_id, resource_type, version, trigger, actor, changed, ignored)
			values ($1, $2, $3, $4, $5, $6, '{}', $7)`, tx.tenant, r.ID, r.Type, r.Version, tx.by.Trigger,
			tx.by.Actor, tx.by.Ignored)
	}
}

// setUnique queues the values that a schema declares unique. Unique is nil if no schema of
// the type does; a deletion sets an empty map, which frees the values.
func (tx *Tx) setUnique(c *change) {
	if c.after.Unique == nil {
		return
	}
	names, values := make([]string, 0, len(c.after.Unique)), make([]string, 0, len(c.after.Unique))
	for name, value := range c.after.Unique {
		names, values = append(names, name), append(values, value)
	}
	tx.add(`
		delete from unique_values u where u.tenant_id = $1 and u.resource_id = $2
		   and (u.attribute, u.value) not in (select * from unnest($3::text[], $4::text[]))`, tx.tenant, c.after.ID,
		names, values)
	tx.add(`
		insert into unique_values (tenant_id, type, attribute, value, resource_id)
		select $1, $3, n.attribute, n.value, $2 from unnest($4::text[], $5::text[]) n (attribute, value)
		 where not exists (select 1 from unique_values u
		   where u.tenant_id = $1 and u.type = $3 and u.attribute = n.attribute and u.value = n.value
		     and u.resource_id = $2)`,
		tx.tenant, c.after.ID, c.after.Type, names, values)
}

// suspend queues the restriction and the deactivation of agents. event returns the event of
// an agent's restriction.
func (tx *Tx) suspend(agents []agent, event func(agent) uuid.UUID) {
	var ids, events []uuid.UUID
	for _, a := range agents {
		ids, events = append(ids, a.ID), append(events, event(a))
	}
	tx.add(`
		insert into restrictions (tenant_id, principal_id, cause, event_id)
		select $1, a.id, 'orphaned', a.event from unnest($2::uuid[], $3::uuid[]) a (id, event)
		  on conflict do nothing`, tx.tenant, ids, events)
	tx.add(`
		with shown as (
		  update resources set active = false, document = document || '{"active": false}', version = version + 1,
		    modified_at = now()
		   where tenant_id = $1 and id = any ($2) and active is distinct from false
		  returning id, version)
		insert into changes (tenant_id, resource_id, resource_type, version, trigger, actor, changed)
		select $1, id, 'Agent', version, $3, $4, '{active}' from shown`, tx.tenant, ids, TriggerOrphaned, tx.by.Actor)
}

// Principal is the subject of an event that [Tx.Emit] stores.
type Principal struct {
	ID      uuid.UUID
	Type    string
	Version int64
	// HasEvent: an event with this version exists, so the workflow ID of the new event ends
	// in the event's sequence.
	HasEvent bool
}

// Emit stores one event of kind for each principal, with the entitlement invalidations and
// the security events that follow from it. The caller starts the workflows within
// emission.Grace; after that the relay starts them.
func (tx *Tx) Emit(ctx context.Context, kind Kind, changed []string, emission Emission,
	of ...Principal,
) ([]*Event, error) {
	if len(of) == 0 {
		return nil, nil
	}
	sequences, err := tx.sequences(ctx, of)
	if err != nil {
		return nil, err
	}
	var events []*Event
	var ids, principals []uuid.UUID
	var types, workflows []string
	var id uuid.UUID
	var sequence int64
	for i, p := range of {
		e := tx.newEvent(kind, newID(), p.ID, p.Type, workflowID(kind, tx.tenant, p.ID, p.Version, sequences[i]), changed)
		events = append(events, &e)
		ids, principals, types, workflows = append(ids, e.ID), append(principals, e.Principal),
			append(types, e.PrincipalType), append(workflows, e.WorkflowID)
	}
	tx.queue = append(tx.queue, database.Statement{
		SQL: eventsSQL,
		Args: []any{
			tx.tenant, kind, tx.by.Trigger, tx.by.Actor, orEmpty(changed), emission.Grace, emission.Ends,
			ids, sequences, principals, types, workflows, tx.by.Trace,
		},
		Collect: database.Each([]any{&id, &sequence}, func() {
			for _, e := range events {
				if e.ID == id {
					e.Sequence = sequence
				}
			}
		}),
	})
	if err := tx.follow(nil, events...); err != nil {
		return nil, err
	}
	tx.events = append(tx.events, events...)
	return events, tx.send(ctx)
}

// SetEnds marks an event of any kind as one that ends credentials: its workflow becomes a
// cascade.
func (tx *Tx) SetEnds(ctx context.Context, event uuid.UUID) error {
	tx.add(`update lifecycle_events set ends = true where tenant_id = $1 and id = $2`, tx.tenant, event)
	return tx.send(ctx)
}

// Emission holds the options of [Tx.Emit].
type Emission struct {
	Ends  bool          // the events end credentials, whatever their kind
	Grace time.Duration // how long the caller has to start the workflows before the relay does
}

// sequences returns a new sequence for each principal with HasEvent, else 0.
func (tx *Tx) sequences(ctx context.Context, of []Principal) ([]int64, error) {
	drawn := make([]int64, len(of))
	again := make([]bool, len(of))
	for i, p := range of {
		again[i] = p.HasEvent
	}
	if !slices.Contains(again, true) {
		return drawn, nil
	}
	err := tx.send(ctx, database.Statement{
		SQL: `select case when again then nextval('lifecycle_sequence') else 0 end
			from unnest($1::boolean[]) with ordinality p (again, n) order by n`,
		Args:    []any{again},
		Collect: database.All(&drawn, pgx.RowTo[int64]),
	})
	return drawn, err
}

func (tx *Tx) newEvent(kind Kind, id, principal uuid.UUID, principalType, workflow string, changed []string) Event {
	return Event{
		Tenant: tx.tenant, ID: id, Kind: kind, Principal: principal, PrincipalType: principalType,
		Trigger: tx.by.Trigger, Actor: tx.by.Actor, Changed: orEmpty(changed), WorkflowID: workflow, CreatedAt: time.Now(),
		Trace: tx.by.Trace,
	}
}

// newID returns a UUID version 7. Such IDs ascend in time, which keeps indexes compact.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) } // crypto/rand never fails

// orEmpty returns an empty slice for nil, which PostgreSQL would store as null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
