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
// statement sees, and written only where that is there still. Who is inactive, and for
// whatever reason not restricted, leaves.
const activateSQL = `,
		seen as (
		  select i.*, r.version as before, r.plain, x.principal_id is not null as restricted
		    from input i join resources r on r.tenant_id = $1 and r.id = i.id and r.type = i.type and r.deleted_at is null
		    left join restrictions x on x.tenant_id = $1 and x.principal_id = i.id
		   where r.active is distinct from i.active or (not i.active and x.principal_id is null)),
		meant as (
		  update resources r set version = r.version + 1, modified_at = s.modified, plain = r.plain and (s.active or s.restricted),
		         active = s.active, document = r.document || jsonb_build_object('active', s.active)
		    from seen s
		   where r.tenant_id = $1 and r.id = s.id and r.version = s.before
		  returning ` + directory.ShownColumns + `, case when not s.plain then more_about(r.tenant_id, r.id) end as more,
		         r.type, s.trigger, s.actor, s.event, s.cause, s.changed, not s.active and not s.restricted as restricts, s.active and s.restricted as lifts,
		         case when s.restricted and s.active then 'joiner' when s.restricted then '' when s.active then 'mover' else 'leaver' end as kind)`

// SetActive makes a principal active or inactive, as [Writer.Update] would that changes
// only this. The result has no event where nothing changed. It looks at no version
// (by.Conditional), and is not for an agent's return, which may orphan others.
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
		if current.Active != nil && *current.Active == active && (active || current.Restricted()) {
			return Result{Resource: current}, nil
		}
	}
	return Result{}, fmt.Errorf("set active of %s %s: %w: others keep changing it", resourceType, id, database.ErrUnavailable)
}

// activateTogether makes activations that came at a time; of a resource, the first. The
// others look what came of that.
func (w *Writer) activateTogether(ctx context.Context, tenant uuid.UUID, all []*activation) []error {
	var first []*activation
	for _, a := range all {
		if !slices.ContainsFunc(first, func(o *activation) bool { return o.id == a.id }) {
			first = append(first, a)
		}
	}
	err := w.shared(ctx, tenant, len(first), activate(tenant, lockPatience, first...))
	errs := coalesce.All(err, len(all))
	for i, a := range all {
		if errors.Is(err, coalesce.ErrAlone) && !slices.Contains(first, a) {
			errs[i] = nil
		}
	}
	return errs
}

func (a *activation) row() row {
	return row{
		ID: a.id, Type: a.ofType, Trigger: a.by.Trigger, Actor: a.by.Actor, Changed: []string{"active"}, Event: a.event,
		Cause: a.by.restriction(), Active: &a.active, Modified: now(),
	}
}

// activated is what an activation that changed something came to, beside the resource.
type activated struct {
	kind     Kind
	lifts    bool
	sequence *int64 // of the event, like its workflow; nil where there is none
	workflow *string
	since    *time.Time // of a new restriction
}

// activate is the statement that makes activations, and collects what came of them.
func activate(tenant uuid.UUID, patience time.Duration, all ...*activation) database.Statement {
	byID := make(map[uuid.UUID]*activation, len(all))
	rows := make([]row, len(all))
	for i, a := range all {
		byID[a.id], rows[i] = a, a.row()
	}
	b := newBuilder(tenant, patience, rows)
	b.add(activateSQL)
	columns, joins := b.addConsequences(true,
		slices.ContainsFunc(all, func(a *activation) bool { return !a.active }),
		slices.ContainsFunc(all, func(a *activation) bool { return a.active }))
	b.add(" select m.id, m.document, m.version, m.created_at, m.modified_at, m.extensions, m.more, m.kind, m.lifts, " + columns + " from meant m" + joins)
	return b.statement(func(rows pgx.Rows) error {
		for _, a := range all {
			a.done = nil // of an attempt that failed
		}
		for rows.Next() {
			var r directory.Resource
			var to activated
			if err := directory.ScanShown(rows, &r, &to.kind, &to.lifts, &to.sequence, &to.workflow, &to.since); err != nil {
				return err
			}
			byID[r.ID].collect(tenant, &r, to)
		}
		return rows.Err()
	})
}

func (a *activation) collect(tenant uuid.UUID, r *directory.Resource, to activated) {
	r.Type, r.Active, a.done = a.ofType, &a.active, &Result{Resource: r}
	if to.sequence != nil {
		a.done.Event = &Event{
			Tenant: tenant, ID: a.event, Sequence: *to.sequence, Kind: to.kind, Principal: a.id, PrincipalType: a.ofType,
			Trigger: a.by.Trigger, Actor: a.by.Actor, Changed: []string{"active"}, WorkflowID: *to.workflow, CreatedAt: time.Now(),
		}
	}
	switch {
	case to.lifts:
		r.Restriction = nil
	case to.since != nil:
		r.Restriction = a.by.restrictionOf(*to.since, a.done.Event)
	}
}
