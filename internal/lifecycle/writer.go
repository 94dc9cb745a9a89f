package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/scim/patch"
)

// Writer commits changes of resources with their restrictions and events, and then starts
// the workflows.
type Writer struct {
	db      *database.DB
	starter Starter
	log     *slog.Logger
	starts  *starts
}

// NewWriter returns a writer that starts workflows with starter. The caller must close it.
func NewWriter(db *database.DB, starter Starter, log *slog.Logger) *Writer {
	return &Writer{db: db, starter: starter, log: log, starts: newStarts()}
}

// now returns the current time in UTC, truncated to milliseconds, the precision of resources.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// Close waits until the starts in progress are stored.
func (w *Writer) Close() { w.starts.running.Wait() }

// Result is the result of a change.
type Result struct {
	Resource *directory.Resource // as stored; nil after a deletion
	// Event is the lifecycle event of the change; nil if there is none.
	Event *Event
}

// Create stores a new resource under a new ID.
// Errors: directory.ErrNameTaken, schema.UnknownTargetError, directory.ErrParents.
func (w *Writer) Create(ctx context.Context, tenant uuid.UUID, r *directory.Resource, by Cause) (Result, error) {
	r.ID, r.Version, r.Created = newID(), 1, now()
	r.Modified = r.Created
	result, err := w.create(ctx, tenant, r, by)
	if err != nil {
		return Result{}, fmt.Errorf("create %s: %w", r.Type, err)
	}
	return result, nil
}

func (w *Writer) create(ctx context.Context, tenant uuid.UUID, r *directory.Resource, by Cause) (Result, error) {
	if len(r.Edges) == 0 && r.Members.Empty() {
		tx := In(nil, tenant, by)
		c, err := tx.newResource(r, edgeChange{})
		if err == nil { // one round trip
			err = database.Together(database.ForChange(ctx), w.db, tenant, tx.take()...)
		}
		return w.done(ctx, tx, c, nil, nil, err)
	}
	open, err := w.db.Begin(ctx, tenant)
	if err != nil {
		return Result{}, err
	}
	defer open.Rollback(ctx)
	tx := In(open, tenant, by)
	edges, err := tx.edgesBetween(ctx, nil, r)
	if err != nil {
		return Result{}, err
	}
	c, err := tx.newResource(r, edges)
	if err != nil {
		return Result{}, err
	}
	var stored *directory.Resource
	last := tx.take()
	if r.Type == directory.TypeAgent {
		stored = &directory.Resource{}
		last = append(last, directory.Read(tenant, r.Type, r.ID, stored))
	}
	return w.done(ctx, tx, c, nil, stored, open.Commit(ctx, last...))
}

// newResource decides the event and the restriction of a new resource, and queues its insert.
func (tx *Tx) newResource(r *directory.Resource, edges edgeChange) (*change, error) {
	c := &change{after: r, edges: edges, changed: difference(nil, r, edges.members())}
	c.decision = decide(nil, r, c.changed)
	return c, tx.create(c)
}

// Edit returns the next version of a resource. It must not modify current, and must not
// call the writer.
type Edit func(tx *Tx, current *directory.Resource) (*directory.Resource, error)

// Update replaces a resource by the result of edit, while the resource is locked. If the
// result equals the original, nothing changes, not even the version.
// Errors: directory.ErrNotFound, ErrNameTaken, UnknownTargetError, ErrParents, edit's, and
// database.ErrUnavailable if another transaction keeps the resource locked.
func (w *Writer) Update(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, by Cause,
	edit Edit,
) (Result, error) {
	open, before, err := w.lock(ctx, tenant, resourceType, id)
	if err != nil {
		return Result{}, err
	}
	defer open.Rollback(ctx)
	tx := inLocked(open, tenant, by, before)
	after, err := edit(tx, &before.Resource)
	if err != nil {
		return Result{}, err
	}
	edges, err := tx.edgesBetween(ctx, &before.Resource, after)
	if err != nil {
		return Result{}, fmt.Errorf("update %s %s: %w", resourceType, id, err)
	}
	c := &change{after: after, edges: edges, changed: difference(&before.Resource, after, edges.members())}
	c.decision = decide(&before.Resource, after, c.changed)
	switch {
	case len(c.changed) == 0 && c.restrict: // it was inactive, and not restricted
		c.changed = []string{"active"}
	case len(c.changed) == 0:
		tx.recordIgnored(&before.Resource)
		return Result{Resource: &before.Resource}, open.Commit(ctx, tx.take()...)
	}
	after.Version, after.Modified = before.Version+1, now()
	result, err := w.save(ctx, open, tx, c, &before.Resource)
	if err != nil {
		return Result{}, fmt.Errorf("update %s %s: %w", resourceType, id, err)
	}
	return result, nil
}

// Delete marks a resource as deleted. precondition may return an error, or be nil.
// Errors: directory.ErrNotFound, precondition's, and database.ErrUnavailable if another
// transaction keeps the resource locked.
func (w *Writer) Delete(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, by Cause,
	precondition func(current *directory.Resource) error,
) (Result, error) {
	open, before, err := w.lock(ctx, tenant, resourceType, id)
	if err != nil {
		return Result{}, err
	}
	defer open.Rollback(ctx)
	if precondition != nil {
		if err := precondition(&before.Resource); err != nil {
			return Result{}, err
		}
	}
	after, inactive := before.Resource, false
	after.Active, after.Version, after.Modified, after.Unique = &inactive, before.Version+1, now(), map[string]string{}
	c := &change{after: &after, changed: []string{}, removes: true, decision: decide(&before.Resource, nil, nil)}
	result, err := w.save(ctx, open, inLocked(open, tenant, by, before), c, &before.Resource)
	if err != nil {
		return Result{}, fmt.Errorf("delete %s %s: %w", resourceType, id, err)
	}
	return Result{Event: result.Event}, nil
}

// lock begins a transaction and locks a live resource in it. Error: directory.ErrNotFound.
func (w *Writer) lock(ctx context.Context, tenant uuid.UUID, resourceType string,
	id uuid.UUID,
) (*database.Tx, *directory.Locked, error) {
	var current directory.Locked
	open, err := w.db.Begin(ctx, tenant, directory.Lock(tenant, resourceType, id, &current))
	if err == nil && current.Outdated {
		err = database.Send(ctx, open, directory.Read(tenant, resourceType, id, &current.Resource))
	}
	if err != nil {
		open.Rollback(ctx)
		return nil, nil, fmt.Errorf("lock %s %s: %w", resourceType, id, err)
	}
	if current.ID == uuid.Nil {
		open.Rollback(ctx)
		return nil, nil, fmt.Errorf("%s %s: %w", resourceType, id, directory.ErrNotFound)
	}
	return open, &current, nil
}

// save stores a change, ends the agents that it leaves without an active owner, and
// commits.
func (w *Writer) save(ctx context.Context, open *database.Tx, tx *Tx, c *change,
	before *directory.Resource,
) (Result, error) {
	if err := tx.save(c); err != nil {
		return Result{}, err
	}
	orphaned := 0
	if c.mayOrphan() {
		n, err := tx.endOrphans(ctx, c.after.ID)
		if err != nil {
			return Result{}, taken(err)
		}
		orphaned = n
	}
	last := tx.take()
	var stored *directory.Resource
	if !c.removes && (orphaned > 0 || (c.after.Type == directory.TypeAgent && c.edges.touches())) {
		// Read again: c has neither the names of edge targets nor the agents that were suspended.
		stored = &directory.Resource{}
		last = append(last, directory.Read(tx.tenant, c.after.Type, c.after.ID, stored))
	}
	return w.done(ctx, tx, c, before, stored, open.Commit(ctx, last...))
}

// mayOrphan reports whether the change may leave agents without an active owner: an agent
// or a group is deleted or returns, or its edges change.
func (c *change) mayOrphan() bool {
	return c.after.Type != directory.TypeUser && (c.edges.touches() || c.removes || c.lift)
}

// done dispatches the events of a committed change; a non-nil err means that it was not
// committed. stored is the resource if it was read again, else nil.
func (w *Writer) done(ctx context.Context, tx *Tx, c *change, before, stored *directory.Resource,
	err error,
) (Result, error) {
	if err != nil {
		return Result{}, taken(err)
	}
	w.dispatch(ctx, tx.events...)
	if stored == nil {
		stored = c.stored(tx.by, before)
	}
	return Result{Resource: stored, Event: c.event}, nil
}

// taken returns directory.ErrNameTaken for a unique violation, and err otherwise.
func taken(err error) error {
	if database.IsUniqueViolation(err, "resources_unique_name") || database.IsUniqueViolation(err, "unique_values_pkey") {
		return directory.ErrNameTaken
	}
	return err
}

// stored returns the resource as c stored it.
func (c *change) stored(by Cause, before *directory.Resource) *directory.Resource {
	r := *c.after
	r.Members, r.Unique, r.Changed = patch.Delta{}, nil, nil
	if before != nil {
		// before has the types and names of the edge targets; c does not.
		r.Edges, r.Groups, r.Restriction = before.Edges, before.Groups, before.Restriction
	}
	if c.lift {
		r.Restriction = nil
	}
	if c.since != nil {
		r.Restriction = &directory.Restriction{Since: *c.since, Cause: by.restriction()}
		if c.event != nil {
			r.Restriction.WorkflowID = c.event.WorkflowID
		}
	}
	return &r
}

// SetActive makes a principal active or inactive. The result has no event if nothing
// changed. Errors: those of [Writer.Update].
func (w *Writer) SetActive(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, active bool,
	by Cause,
) (Result, error) {
	return w.Update(ctx, tenant, resourceType, id, by,
		func(_ *Tx, current *directory.Resource) (*directory.Resource, error) {
			return withActive(current, active)
		})
}

// ErrNotRestricted is returned when the principal has no restriction.
var ErrNotRestricted = fault.New(fault.Conflict, "the principal is not restricted")

// Restore lifts a principal's restriction and emits a joiner event, like an explicit
// `active: true`. The principal regains its entitlements, but no ended credentials. Running
// cascades continue. Errors: directory.ErrNotFound, [ErrNotRestricted].
func (w *Writer) Restore(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID,
	by Cause,
) (Result, error) {
	return w.Update(ctx, tenant, resourceType, id, by,
		func(_ *Tx, current *directory.Resource) (*directory.Resource, error) {
			if !current.Restricted() {
				return nil, ErrNotRestricted
			}
			return withActive(current, true)
		})
}

// Deactivated returns an inactive copy of a resource.
func Deactivated(current *directory.Resource) (*directory.Resource, error) {
	return withActive(current, false)
}

func withActive(current *directory.Resource, active bool) (*directory.Resource, error) {
	after := *current
	if current.Active != nil && *current.Active == active && active != current.Restricted() {
		return &after, nil
	}
	var document map[string]json.RawMessage
	if err := json.Unmarshal(current.Document, &document); err != nil {
		return nil, fmt.Errorf("decode the document of %s: %w", current.ID, err)
	}
	encoded, err := json.Marshal(active)
	if err != nil {
		return nil, err
	}
	document["active"] = encoded
	after.Active, after.Changed = &active, []string{"active"}
	after.Document, err = json.Marshal(document)
	return &after, err
}

// EndAgain emits another leaver event for a restricted principal, deleted or not, so that a
// new cascade ends credentials found since. Error: [ErrNotRestricted].
func (w *Writer) EndAgain(ctx context.Context, tenant, principal uuid.UUID, by Cause) (*Event, error) {
	event, err := w.endAgain(ctx, tenant, principal, by)
	if err != nil {
		return nil, fmt.Errorf("end %s again: %w", principal, err)
	}
	w.dispatch(ctx, event)
	return event, nil
}

func (w *Writer) endAgain(ctx context.Context, tenant, principal uuid.UUID, by Cause) (*Event, error) {
	var restricted []Principal
	args := []any{tenant, principal}
	open, err := w.db.Begin(ctx, tenant, database.Statement{SQL: `select 1 from resources where tenant_id = $1
		and id = $2 for no key update`, Args: args}, database.Statement{
		SQL: `select r.id, r.type, r.version, true from resources r join restrictions x on x.tenant_id = $1
			and x.principal_id = r.id
		       where r.tenant_id = $1 and r.id = $2`,
		Args: args, Collect: database.All(&restricted, pgx.RowToStructByPos[Principal]),
	})
	if err != nil {
		return nil, err
	}
	defer open.Rollback(ctx)
	if len(restricted) == 0 {
		return nil, ErrNotRestricted
	}
	tx := In(open, tenant, by)
	events, err := tx.Emit(ctx, Leaver, nil, Emission{Grace: grace}, restricted...)
	if err != nil {
		return nil, err
	}
	tx.add(`update restrictions set event_id = $3 where tenant_id = $1 and principal_id = $2`, tenant, principal,
		events[0].ID)
	return events[0], open.Commit(ctx, tx.take()...)
}
