package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/coalesce"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// activation makes a principal active or inactive, and changes nothing else of it: what
// identity providers send of leavers. PostgreSQL sees what is there, so that nothing is
// read before.
type activation struct {
	id     uuid.UUID
	ofType string
	active bool
	by     Cause
	event  uuid.UUID

	done *Result // nil where nothing was written
}

// What an activation means is what [decide] says of it. It is decided by what the
// statement sees, and written only where that is there still.
const activateSQL = `,
		seen as (
		  select i.*, r.version as before, r.plain, x.principal_id is not null as restricted
		    from input i join resources r on r.tenant_id = $1 and r.id = i.id and r.type = i.type and r.deleted_at is null
		    left join restrictions x on x.tenant_id = $1 and x.principal_id = i.id
		   where r.active is distinct from i.active),
		meant as (
		  update resources r set version = r.version + 1, modified_at = s.modified, plain = r.plain and (s.active or s.restricted),
		         active = s.active, document = r.document || jsonb_build_object('active', s.active)
		    from seen s
		   where r.tenant_id = $1 and r.id = s.id and r.version = s.before
		  returning ` + directory.ShownColumns + `, case when not s.plain then more_about(r.tenant_id, r.id) end as more,
		         r.type, s.trigger, s.actor, s.event, s.cause, s.changed, not s.active and not s.restricted as restricts, s.active and s.restricted as lifts,
		         case when s.restricted and s.active then 'joiner' when s.restricted then '' when s.active then 'mover' else 'leaver' end as kind)`

// SetActive makes a principal active or inactive, as [Writer.Update] would that changes
// only this. An agent's return, which depends on its owners, is not for it.
// Error: directory.ErrNotFound.
func (w *Writer) SetActive(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, active bool, by Cause) (Result, error) {
	for range maxAttempts {
		a := &activation{id: id, ofType: resourceType, active: active, by: by, event: newID()}
		err := w.activations.Do(ctx, tenant, a)
		if errors.Is(err, coalesce.ErrAlone) {
			err = database.Together(ctx, w.db, tenant, activate(tenant, 0, a))
		}
		if err != nil {
			return Result{}, fmt.Errorf("set active of %s %s: %w", resourceType, id, err)
		}
		if a.done != nil {
			w.dispatch(ctx, a.done.Event)
			return *a.done, nil
		}
		current, err := w.resources.Get(ctx, tenant, resourceType, id)
		if err != nil {
			return Result{}, err
		}
		if current.Active != nil && *current.Active == active {
			return Result{Resource: current}, nil
		}
	}
	return Result{}, fmt.Errorf("set active of %s %s: %w: others keep changing it", resourceType, id, database.ErrUnavailable)
}

// activateTogether makes activations that came at a time; of a resource, the first.
func (w *Writer) activateTogether(ctx context.Context, tenant uuid.UUID, all []*activation) []error {
	var first []*activation
	for _, a := range all {
		if !slices.ContainsFunc(first, func(o *activation) bool { return o.id == a.id }) {
			first = append(first, a)
		}
	}
	slices.SortFunc(first, func(a, b *activation) int { return inOrder(a.id, b.id) })
	return coalesce.All(w.shared(ctx, tenant, len(first), activate(tenant, lockPatience, first...)), len(all))
}

func (a *activation) row() row {
	return row{
		ID: a.id, Type: a.ofType, Trigger: a.by.Trigger, Actor: a.by.Actor, Changed: changesActive, Event: a.event,
		Cause: a.by.restriction(), Active: &a.active, Modified: now(),
	}
}

// changesActive is what an activation changes.
var changesActive = []string{"active"}

// activate is the statement that makes activations, and collects what came of each that
// changed anything.
func activate(tenant uuid.UUID, patience time.Duration, all ...*activation) database.Statement {
	byID := make(map[uuid.UUID]*activation, len(all))
	rows := make([]row, len(all))
	for i, a := range all {
		byID[a.id], rows[i] = a, a.row()
	}
	b := newBuilder(tenant, patience, rows)
	b.add(activateSQL)
	goes := func(a *activation) bool { return !a.active }
	returns := func(a *activation) bool { return a.active }
	columns, joins := b.addConsequences(true, slices.ContainsFunc(all, goes), slices.ContainsFunc(all, returns))
	b.add(" select m.id, m.document, m.version, m.created_at, m.modified_at, m.extensions, m.more, m.kind, m.lifts, " + columns + " from meant m" + joins)
	return b.statement(func(rows pgx.Rows) error {
		for _, a := range all {
			a.done = nil // of an attempt that failed
		}
		for rows.Next() {
			var r directory.Resource
			var kind Kind
			var lifts bool
			var sequence *int64
			var workflow *string
			var since *time.Time
			if err := directory.ScanShown(rows, &r, &kind, &lifts, &sequence, &workflow, &since); err != nil {
				return err
			}
			byID[r.ID].collect(tenant, &r, kind, lifts, sequence, workflow, since)
		}
		return rows.Err()
	})
}

func (a *activation) collect(tenant uuid.UUID, r *directory.Resource, kind Kind, lifts bool, sequence *int64, workflow *string, since *time.Time) {
	r.Type, r.Active, a.done = a.ofType, &a.active, &Result{Resource: r}
	if sequence != nil {
		a.done.Event = &Event{
			Tenant: tenant, ID: a.event, Sequence: *sequence, Kind: kind, Principal: a.id, PrincipalType: a.ofType,
			Trigger: a.by.Trigger, Actor: a.by.Actor, Changed: changesActive, WorkflowID: *workflow, CreatedAt: time.Now(),
		}
	}
	switch {
	case lifts:
		r.Restriction = nil
	case since != nil: // with the event of a leaver
		r.Restriction = &directory.Restriction{Since: *since, Cause: a.by.restriction(), WorkflowID: *workflow}
	}
}
