package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// startDeadline bounds what a SCIM response waits for Temporal: the IdP's
// patience is shorter than an outage.
const startDeadline = 250 * time.Millisecond

// Cause says who changes a resource, and by what.
type Cause struct {
	Trigger string // e.g. scim-patch
	Actor   string
}

// Writer commits changes of resources with what they mean, and then starts
// the workflows.
type Writer struct {
	db      *database.DB
	starter Starter
	log     *slog.Logger
}

// NewWriter returns a writer that starts workflows by starter.
func NewWriter(db *database.DB, starter Starter, log *slog.Logger) *Writer {
	return &Writer{db: db, starter: starter, log: log}
}

// Create stores a new resource under a fresh id, and returns it as stored.
// Errors: directory.ErrNameTaken, directory.UnknownTargetError.
func (w *Writer) Create(ctx context.Context, tenant uuid.UUID, r *directory.Resource, by Cause) (*directory.Resource, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an id: %w", err)
	}
	r.ID, r.Version = id, 1
	r.Created = time.Now().UTC().Truncate(time.Millisecond)
	r.Modified = r.Created
	var stored *directory.Resource
	var event *Event
	err = w.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		if err := directory.Insert(ctx, tx, tenant, r); err != nil {
			return err
		}
		if event, err = apply(ctx, tx, tenant, r, decide(nil, r, nil), nil, by); err != nil {
			return err
		}
		stored, err = directory.Lock(ctx, tx, tenant, r.Type, r.ID)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", r.Type, err)
	}
	w.dispatch(ctx, event)
	return stored, nil
}

// Update replaces a resource by what edit makes of it, and returns it as
// stored. edit may run only under the row's lock: parallel changes queue. A
// result that equals the original changes nothing, not even the version.
// Errors: directory.ErrNotFound, ErrNameTaken, UnknownTargetError, and edit's.
func (w *Writer) Update(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, by Cause,
	edit func(current *directory.Resource) (*directory.Resource, error),
) (*directory.Resource, error) {
	var stored *directory.Resource
	var event *Event
	var orphans []*Event
	err := w.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		before, err := directory.Lock(ctx, tx, tenant, resourceType, id)
		if err != nil {
			return err
		}
		after, err := edit(before)
		if err != nil {
			return err
		}
		changed, err := difference(before, after)
		if err != nil {
			return fmt.Errorf("compare versions: %w", err)
		}
		if len(changed) == 0 {
			stored = before
			return nil
		}
		after.Version, after.Modified = before.Version+1, time.Now().UTC().Truncate(time.Millisecond)
		if err := directory.Update(ctx, tx, tenant, before, after); err != nil {
			return err
		}
		if event, err = apply(ctx, tx, tenant, after, decide(before, after, changed), changed, by); err != nil {
			return err
		}
		if orphans, err = orphan(ctx, tx, tenant, after, by); err != nil {
			return err
		}
		stored, err = directory.Lock(ctx, tx, tenant, resourceType, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("update %s %s: %w", resourceType, id, err)
	}
	w.dispatch(ctx, append(orphans, event)...)
	return stored, nil
}

// Delete makes a resource a tombstone. A principal's deletion is a leave, also
// where the principal was inactive before. precondition may refuse, or be nil.
// Error: directory.ErrNotFound, and precondition's.
func (w *Writer) Delete(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, by Cause,
	precondition func(current *directory.Resource) error,
) error {
	var event *Event
	var orphans []*Event
	err := w.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		before, err := directory.Lock(ctx, tx, tenant, resourceType, id)
		if err != nil {
			return err
		}
		if precondition != nil {
			if err := precondition(before); err != nil {
				return err
			}
		}
		if err := directory.Tombstone(ctx, tx, tenant, id, time.Now().UTC()); err != nil {
			return err
		}
		d := decision{kind: Leaver, restrict: true}
		if resourceType == directory.TypeGroup {
			d = decision{kind: TeamSync}
		}
		after := *before
		after.Version++
		if event, err = apply(ctx, tx, tenant, &after, d, nil, by); err != nil {
			return err
		}
		orphans, err = orphan(ctx, tx, tenant, &after, by)
		return err
	})
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", resourceType, id, err)
	}
	w.dispatch(ctx, append(orphans, event)...)
	return nil
}

// apply writes restriction and event of a decision, in the change's own transaction.
func apply(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, r *directory.Resource, d decision, changed []string, by Cause) (*Event, error) {
	var event *Event
	if d.kind != "" {
		event = &Event{
			Tenant: tenant, ID: uuid.New(), Kind: d.kind, Principal: r.ID, PrincipalType: r.Type,
			Trigger: by.Trigger, Actor: by.Actor, Changed: changed, WorkflowID: workflowID(d.kind, tenant, r.ID, r.Version),
		}
		if err := insertEvent(ctx, tx, event); err != nil {
			return nil, err
		}
	}
	if d.restrict {
		if err := restrict(ctx, tx, tenant, r.ID, event, by); err != nil {
			return nil, err
		}
	}
	if d.lift {
		if _, err := tx.Exec(ctx, `delete from restrictions where tenant_id = $1 and principal_id = $2`, tenant, r.ID); err != nil {
			return nil, err
		}
	}
	return event, nil
}

func restrict(ctx context.Context, tx pgx.Tx, tenant, principal uuid.UUID, event *Event, by Cause) error {
	cause := "deactivated"
	switch by.Trigger {
	case TriggerDelete:
		cause = "deleted"
	case TriggerOrphaned:
		cause = "orphaned"
	}
	var eventID *uuid.UUID
	if event != nil {
		eventID = &event.ID
	}
	_, err := tx.Exec(ctx, `
		insert into restrictions (tenant_id, principal_id, cause, event_id) values ($1, $2, $3, $4)
		on conflict (tenant_id, principal_id) do update set cause = excluded.cause, event_id = coalesce(excluded.event_id, restrictions.event_id)`,
		tenant, principal, cause, eventID)
	return err
}

// TriggerDelete is the trigger of deletions.
const TriggerDelete = "scim-delete"

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

// dispatch starts the events' workflows if Temporal answers within the
// deadline; if not, the relay will, and the caller need not know.
func (w *Writer) dispatch(ctx context.Context, events ...*Event) {
	// The client may be gone by now; the events are committed all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startDeadline)
	defer cancel()
	for _, event := range events {
		if event == nil {
			continue
		}
		if err := deliver(ctx, w.db, w.starter, *event); err != nil {
			w.log.Warn("workflow not started yet; the relay will start it", "workflow", event.WorkflowID, "error", err)
		}
	}
}

func deliver(ctx context.Context, db *database.DB, starter Starter, event Event) error {
	runID, err := starter.Start(ctx, event)
	if err != nil {
		return fmt.Errorf("start %s: %w", event.WorkflowID, err)
	}
	return db.InTenant(ctx, event.Tenant, func(tx pgx.Tx) error { return markStarted(ctx, tx, event, runID) })
}
