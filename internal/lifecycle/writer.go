package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/coalesce"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// Cause says who changes a resource, and by what.
type Cause struct {
	Trigger string // e.g. scim-patch
	Actor   string
	// Conditional: the change was made for a version (If-Match).
	Conditional bool
}

// restriction is the cause that a restriction tells.
func (c Cause) restriction() string {
	if c.Trigger == TriggerDelete {
		return "deleted"
	}
	return "deactivated"
}

// restrictionOf is the restriction that a change made, with its event if it has one.
func (c Cause) restrictionOf(since time.Time, e *Event) *directory.Restriction {
	r := &directory.Restriction{Since: since, Cause: c.restriction()}
	if e != nil {
		r.WorkflowID = e.WorkflowID
	}
	return r
}

// maxAttempts bounds how often a change is made again because others changed
// the same resource meanwhile. Each loss is another's success.
const maxAttempts = 100

// Writer commits changes of resources with what they mean, and then starts
// the workflows.
type Writer struct {
	db          *database.DB
	starter     Starter
	log         *slog.Logger
	starts      *starts
	started     *marker
	commits     *coalesce.Group[commitKey, *change]
	activations *coalesce.Group[uuid.UUID, *activation]
	resources   *directory.Store
}

// NewWriter returns a writer that starts workflows by starter; close it.
func NewWriter(db *database.DB, starter Starter, log *slog.Logger) *Writer {
	w := &Writer{db: db, resources: directory.NewStore(db), starter: starter, log: log, starts: newStarts(), started: newMarker(db, log)}
	w.commits = coalesce.NewGroup(w.commitTogether)
	w.activations = coalesce.NewGroup(w.activateTogether)
	return w
}

// newID is of version 7: its order is that of creation, which keeps indexes compact.
func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) } // crypto/rand never fails

// now is when a change is made, as precisely as a resource tells it.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// Close waits until what was started is stored as such.
func (w *Writer) Close() {
	w.starts.running.Wait()
	w.started.close()
}

// Result is what a change left behind.
type Result struct {
	Resource *directory.Resource // as stored; nil after a deletion
	// Event is the lifecycle event that the change is; nil where it is none.
	Event *Event
}

// Create stores a new resource under a fresh id.
// Errors: directory.ErrNameTaken, directory.UnknownTargetError.
func (w *Writer) Create(ctx context.Context, tenant uuid.UUID, r *directory.Resource, by Cause) (Result, error) {
	r.ID, r.Version = newID(), 1
	r.Created = now()
	r.Modified = r.Created
	d := decide(nil, r, nil)
	c := &change{after: r, by: by, event: newID(), decision: d, edges: edgesBetween(nil, r), isNew: true}
	if !r.Members.Empty() {
		c.changed = []string{directory.EdgeMembers}
	}
	if err := w.checkTargets(ctx, tenant, c); err != nil {
		return Result{}, fmt.Errorf("create %s: %w", r.Type, err)
	}
	if err := w.commit(ctx, tenant, c); err != nil {
		return Result{}, fmt.Errorf("create %s: %w", r.Type, err)
	}
	w.dispatch(ctx, c.done.event)
	return w.result(ctx, tenant, c, nil)
}

func (w *Writer) checkTargets(ctx context.Context, tenant uuid.UUID, c *change) error {
	return directory.CheckTargets(ctx, w.db, tenant, c.after.ID, c.edges.addAttributes, c.edges.addTargets)
}

// Update replaces a resource by what edit makes of it. edit may run again, on a
// newer version, where others change the resource meanwhile; changes of a
// group's members alone pass each other. A result that equals the original
// changes nothing, not even the version.
// Errors: directory.ErrNotFound, ErrNameTaken, UnknownTargetError, and edit's.
func (w *Writer) Update(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, by Cause,
	edit func(current *directory.Resource) (*directory.Resource, error),
) (Result, error) {
	for range maxAttempts {
		before, err := w.resources.Get(ctx, tenant, resourceType, id)
		if err != nil {
			return Result{}, err
		}
		after, err := edit(before)
		if err != nil {
			return Result{}, err
		}
		result, err := w.replace(ctx, tenant, before, after, by)
		if !errors.Is(err, errOutdated) {
			return result, err
		}
	}
	return Result{}, fmt.Errorf("update %s %s: %w: others keep changing it", resourceType, id, database.ErrUnavailable)
}

func (w *Writer) replace(ctx context.Context, tenant uuid.UUID, before, after *directory.Resource, by Cause) (Result, error) {
	changed := difference(before, after)
	if len(changed) == 0 && after.Members.Empty() {
		return Result{Resource: before}, nil
	}
	c := &change{
		after: after, by: by, event: newID(), changed: changed, decision: decide(before, after, changed),
		edges: edgesBetween(before, after),
	}
	if c.ifMembers = c.kind; !after.Members.Empty() {
		c.ifMembers = decide(before, after, append([]string{directory.EdgeMembers}, changed...)).kind
	}
	if err := w.checkTargets(ctx, tenant, c); err != nil {
		return Result{}, fmt.Errorf("update %s %s: %w", after.Type, after.ID, err)
	}
	after.Modified = now()
	if len(changed) > 0 || by.Conditional {
		c.expected = &before.Version
	}
	err := w.commit(ctx, tenant, c)
	if errors.Is(err, errOutdated) && len(changed) == 0 {
		// No member was new or gone, unless the group itself is.
		current, err := w.resources.Get(ctx, tenant, after.Type, after.ID)
		if err == nil && by.Conditional && current.Version != before.Version {
			return Result{}, errOutdated
		}
		return Result{Resource: current}, err
	}
	if err != nil {
		return Result{}, fmt.Errorf("update %s %s: %w", after.Type, after.ID, err)
	}
	w.dispatch(ctx, append(c.done.orphans, c.done.event)...)
	return w.result(ctx, tenant, c, before)
}

// result is the resource as stored. What the change cannot know, other
// resources' names at the end of edges and what was orphaned, is read again.
func (w *Writer) result(ctx context.Context, tenant uuid.UUID, c *change, before *directory.Resource) (Result, error) {
	stored, done := *c.after, c.done
	// Others may have changed a group's row while this changed its members.
	passed := before != nil && done.version != before.Version+1
	if passed || len(done.orphans) > 0 || (stored.Type == directory.TypeAgent && c.edges.touches()) {
		reread, err := w.resources.Get(ctx, tenant, stored.Type, stored.ID)
		return Result{Resource: reread, Event: done.event}, err
	}
	stored.Version, stored.Members, stored.Unique = done.version, directory.Delta{}, nil
	if before != nil {
		// With the types and names of those they lead to, which the change did not say.
		stored.Edges, stored.Groups, stored.Restriction = before.Edges, before.Groups, before.Restriction
	}
	if c.lift {
		stored.Restriction = nil
	}
	if done.since != nil {
		stored.Restriction = c.by.restrictionOf(*done.since, done.event)
	}
	return Result{Resource: &stored, Event: done.event}, nil
}

// Delete makes a resource a tombstone. A principal's deletion is a leave, also
// where the principal was inactive before. precondition may refuse, or be nil.
// Error: directory.ErrNotFound, and precondition's.
func (w *Writer) Delete(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, by Cause,
	precondition func(current *directory.Resource) error,
) (Result, error) {
	d := decision{kind: Leaver, restrict: true}
	if resourceType == directory.TypeGroup {
		d = decision{kind: TeamSync}
	}
	for range maxAttempts {
		before, err := w.resources.Get(ctx, tenant, resourceType, id)
		if err != nil {
			return Result{}, err
		}
		if precondition != nil {
			if err := precondition(before); err != nil {
				return Result{}, err
			}
		}
		after := *before
		inactive := false
		after.Active, after.Modified, after.Unique = &inactive, now(), map[string]string{}
		c := &change{
			after: &after, by: by, event: newID(), decision: d, expected: &before.Version, removes: true,
		}
		err = w.commit(ctx, tenant, c)
		if errors.Is(err, errOutdated) {
			continue
		}
		if err != nil {
			return Result{}, fmt.Errorf("delete %s %s: %w", resourceType, id, err)
		}
		w.dispatch(ctx, append(c.done.orphans, c.done.event)...)
		return Result{Event: c.done.event}, nil
	}
	return Result{}, fmt.Errorf("delete %s %s: %w: others keep changing it", resourceType, id, database.ErrUnavailable)
}

const (
	// TriggerDelete is the trigger of deletions.
	TriggerDelete = "scim-delete"
	// TriggerOrphaned is the trigger of the leave of an agent that lost its last
	// active owner by a change of its owners, or of a group that owns it. (An agent
	// whose owner leaves ends in the owner's own cascade.)
	TriggerOrphaned = "orphaned"
)

// Restricted tells whether decisions about a principal are deny.
func Restricted(ctx context.Context, db *database.DB, tenant, principal uuid.UUID) (restricted bool, err error) {
	err = db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		restricted, err = isRestricted(ctx, tx, tenant, principal)
		return err
	})
	return restricted, err
}

func isRestricted(ctx context.Context, tx pgx.Tx, tenant, principal uuid.UUID) (bool, error) {
	var restricted bool
	err := tx.QueryRow(ctx, `select exists (select 1 from restrictions where tenant_id = $1 and principal_id = $2)`, tenant, principal).
		Scan(&restricted)
	return restricted, err
}
