package lifecycle

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// errOutdated says that the resource is not any more what the change was made for.
var errOutdated = errors.New("the resource has changed meanwhile")

const (
	// commitsAtOnce is how many shared commits of one tenant are under way: the changes
	// that come meanwhile share the next.
	commitsAtOnce = 1
	// lockPatience bounds what a shared commit waits for a row that somebody else holds:
	// after that each change goes on alone, and only whose row it is waits.
	lockPatience     = "50ms"
	lockNotAvailable = "55P03" // PostgreSQL's code for that
)

// company are changes that may share a commit.
type company struct {
	tenant uuid.UUID
	isNew  bool
}

// errAlone says that changes could not share a commit, and nothing was written.
var errAlone = errors.New("the change must go alone")

// commit stores a change. Errors: errOutdated, directory.ErrNameTaken.
func (w *Writer) commit(ctx context.Context, tenant uuid.UUID, isNew bool, c *change) error {
	of := company{tenant, isNew}
	if !c.goesAlone() {
		if err := w.commits.Do(ctx, of, c); !errors.Is(err, errAlone) {
			return err
		}
	}
	return w.commitAlone(ctx, of, c)
}

// commitTogether stores changes that came at a time, or none of them: errAlone.
func (w *Writer) commitTogether(ctx context.Context, of company, changes []*change) []error {
	errs := make([]error, len(changes))
	// Of two changes of one resource that were made for the same version one is too late.
	taken := make(map[uuid.UUID]bool, len(changes))
	var first []*change
	for i, c := range changes {
		if taken[c.after.ID] {
			errs[i] = errOutdated
			continue
		}
		taken[c.after.ID] = true
		first = append(first, c)
	}
	err := database.Together(ctx, w.db, of.tenant,
		database.Statement{SQL: `select set_config('lock_timeout', $1, true)`, Args: []any{lockPatience}, Collect: drain}, statement(of, first))
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (len(first) > 1 || refused.Code == lockNotAvailable) {
		err = errAlone
	}
	for i, c := range changes {
		if errs[i] == nil {
			errs[i] = c.outcome(err)
		}
	}
	return errs
}

func (w *Writer) commitAlone(ctx context.Context, of company, c *change) error {
	var statements []database.Statement
	if c.edges.touches() && !of.isNew {
		// The lock comes first, in a statement of its own: what is read after it is
		// what the previous holder committed.
		statements = append(statements, database.Statement{
			SQL: `select 1 from resources where tenant_id = $1 and id = $2 for no key update`, Args: []any{of.tenant, c.after.ID}, Collect: drain,
		})
	}
	statements = append(statements, statement(of, []*change{c}))
	if c.mayOrphan {
		statements = append(statements, c.orphans(of.tenant))
	}
	return c.outcome(database.Together(ctx, w.db, of.tenant, statements...))
}

// outcome is what became of a change whose statement ended with err.
func (c *change) outcome(err error) error {
	switch {
	case database.IsUniqueViolation(err, "resources_unique_name"), database.IsUniqueViolation(err, "unique_values_pkey"):
		return directory.ErrNameTaken
	case err == nil && c.done.version == 0:
		return errOutdated
	}
	return err
}

// statement writes changes, and collects what PostgreSQL made of each that was written.
func statement(of company, changes []*change) database.Statement {
	b := write(of, changes)
	return database.Statement{SQL: strings.Join(b.parts, ""), Args: b.args, Collect: func(rows pgx.Rows) error {
		byID := make(map[uuid.UUID]*change, len(changes))
		for _, c := range changes {
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
				c.done.event = c.made(of.tenant, *sequence, *workflow, members)
			}
			return nil
		})
		return err
	}}
}

// made is the event that a change came to.
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

func drain(rows pgx.Rows) error {
	_, err := database.Nothing(rows)
	return err
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
