package lifecycle

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/coalesce"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// errOutdated says that the resource is not any more what the change was made for.
var errOutdated = errors.New("the resource has changed meanwhile")

// lockPatience bounds what a shared commit waits for a row that somebody else holds:
// after that each change goes on alone, and only whose row it is waits.
const lockPatience = 50 * time.Millisecond

// commitKey is what changes have in common that may share a commit.
type commitKey struct {
	tenant uuid.UUID
	isNew  bool
}

// commit stores a change. Errors: errOutdated, directory.ErrNameTaken.
func (w *Writer) commit(ctx context.Context, tenant uuid.UUID, c *change) error {
	if !c.goesAlone() {
		if err := w.commits.Do(ctx, commitKey{tenant, c.isNew}, c); !errors.Is(err, coalesce.ErrAlone) {
			return err
		}
	}
	return w.commitAlone(ctx, tenant, c)
}

// commitTogether stores changes that came at a time, or none of them: coalesce.ErrAlone.
func (w *Writer) commitTogether(ctx context.Context, key commitKey, changes []*change) []error {
	current := newest(changes)
	err := w.shared(ctx, key.tenant, len(current), statement(key.tenant, lockPatience, current))
	errs := make([]error, len(changes))
	for i, c := range changes {
		if errs[i] = errOutdated; slices.Contains(current, c) {
			errs[i] = c.outcome(err)
		}
	}
	return errs
}

// shared makes a statement of so many changes that waits for no lock for long. Where that
// may be one change's own affair the error is coalesce.ErrAlone.
func (w *Writer) shared(ctx context.Context, tenant uuid.UUID, changes int, s database.Statement) error {
	err := database.Together(ctx, w.db, tenant, s)
	if database.IsLockTimeout(err) || (database.Refused(err) && changes > 1) {
		return coalesce.ErrAlone
	}
	return err
}

// newest leaves out changes of a resource that were made for an older version than
// another is, or for the same one as one before: these are too late.
func newest(changes []*change) []*change {
	var current []*change
	for _, c := range changes {
		same := slices.IndexFunc(current, func(o *change) bool { return o.after.ID == c.after.ID })
		switch {
		case same < 0:
			current = append(current, c)
		case c.expected != nil && *c.expected > *current[same].expected:
			current[same] = c
		}
	}
	return current
}

func (w *Writer) commitAlone(ctx context.Context, tenant uuid.UUID, c *change) error {
	var statements []database.Statement
	if c.edges.touches() && !c.isNew {
		// The lock comes first, in a statement of its own: what is read after it is
		// what the previous holder committed.
		statements = append(statements, database.Statement{
			SQL: `select 1 from resources where tenant_id = $1 and id = $2 for no key update`, Args: []any{tenant, c.after.ID}, Collect: database.Drain,
		})
	}
	statements = append(statements, statement(tenant, 0, []*change{c}))
	if c.mayOrphan() {
		statements = append(statements, c.orphans(tenant))
	}
	return c.outcome(database.Together(ctx, w.db, tenant, statements...))
}

// outcome is what became of a change whose statement ended with err.
func (c *change) outcome(err error) error {
	switch {
	case database.IsUniqueViolation(err, "resources_unique_name"), database.IsUniqueViolation(err, "unique_values_pkey"):
		return directory.ErrNameTaken
	case err == nil && c.done.version == 0 && c.isNew:
		return directory.ErrNameTaken
	case err == nil && c.done.version == 0:
		return errOutdated
	}
	return err
}

// statement writes changes, and collects what PostgreSQL made of each that was written.
func statement(tenant uuid.UUID, patience time.Duration, changes []*change) database.Statement {
	return write(tenant, patience, changes).statement(func(rows pgx.Rows) error {
		byID := make(map[uuid.UUID]*change, len(changes))
		for _, c := range changes {
			// A shared commit may have been collected, and then have failed.
			byID[c.after.ID], c.done = c, committed{}
		}
		var id uuid.UUID
		var version int64
		var members bool
		var sequence *int64
		var workflow *string
		var since *time.Time
		_, err := pgx.ForEachRow(rows, []any{&id, &version, &members, &sequence, &workflow, &since}, func() error {
			c := byID[id]
			c.done.version, c.done.since = version, since
			if sequence != nil {
				c.done.event = c.made(tenant, *sequence, *workflow, members)
			}
			return nil
		})
		return err
	})
}

// made is the event that a change came to, as [meantSQL] has it.
func (c *change) made(tenant uuid.UUID, sequence int64, workflow string, members bool) *Event {
	kind, changed := c.kind, orEmpty(c.changed)
	if members {
		kind, changed = c.ifMembers, append(slices.Clone(changed), directory.EdgeMembers)
	}
	return &Event{
		Tenant: tenant, ID: c.event, Sequence: sequence, Kind: kind, Principal: c.after.ID, PrincipalType: c.after.Type,
		Trigger: c.by.Trigger, Actor: c.by.Actor, Changed: changed, WorkflowID: workflow, CreatedAt: time.Now(),
	}
}

func (c *change) orphans(tenant uuid.UUID) database.Statement {
	return database.Statement{
		SQL: orphanSQL, Args: []any{tenant, c.after.ID, TriggerOrphaned, c.by.Actor, grace},
		Collect: func(rows pgx.Rows) error {
			e := Event{Tenant: tenant, Kind: Leaver, PrincipalType: directory.TypeAgent, Trigger: TriggerOrphaned, Actor: c.by.Actor, CreatedAt: time.Now()}
			_, err := pgx.ForEachRow(rows, []any{&e.ID, &e.Sequence, &e.Principal, &e.WorkflowID}, func() error {
				event := e
				c.done.orphans = append(c.done.orphans, &event)
				return nil
			})
			return err
		},
	}
}
