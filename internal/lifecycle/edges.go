package lifecycle

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/scim/schema"
)

// maxParents bounds the nesting depth of agents.
const maxParents = 32

// edgeChange is the difference between a resource's stored and wanted edges.
type edgeChange struct {
	added, removed []edge
}

type edge struct {
	attribute  string
	target     uuid.UUID
	targetType string
}

func (c *edgeChange) touches() bool { return len(c.added)+len(c.removed) > 0 }

// members reports whether the members of a group change.
func (c *edgeChange) members() bool {
	all := slices.Concat(c.added, c.removed)
	return len(all) > 0 && all[0].attribute == directory.EdgeMembers
}

// wantedEdges are the edges that a change names, as columns.
type wantedEdges struct {
	attributes []string
	targets    []uuid.UUID
	wanted     []bool // false removes the edge
	clear      bool   // removes all members that are not wanted
}

func (w *wantedEdges) name(attribute string, wanted bool, targets ...uuid.UUID) {
	for _, t := range targets {
		w.attributes, w.targets, w.wanted = append(w.attributes, attribute), append(w.targets, t), append(w.wanted, wanted)
	}
}

func wanted(before, after *directory.Resource) wantedEdges {
	w := wantedEdges{clear: after.Members.Clear && before != nil}
	for _, attribute := range []string{directory.EdgeOwners, directory.EdgeParent} {
		var had map[uuid.UUID]bool
		if before != nil {
			had = before.Targets(attribute)
		}
		has := after.Targets(attribute)
		for target := range has {
			if !had[target] {
				w.name(attribute, true, target)
			}
		}
		for target := range had {
			if !has[target] {
				w.name(attribute, false, target)
			}
		}
	}
	w.name(directory.EdgeMembers, true, after.Members.Added()...)
	if before != nil {
		w.name(directory.EdgeMembers, false, after.Members.Removed()...)
	}
	return w
}

// edgesSQL selects the named edges that would be added or removed, so that a change of one
// member of a large group touches one row, and whether each is allowed: the target is live,
// of a type that the attribute accepts, and not the resource itself. A deleted target may be
// named if its edge is already stored.
const edgesSQL = `
	with named as (select * from unnest($3::text[], $4::uuid[], $5::boolean[]) n (attribute, target_id, wanted))
	select n.attribute, n.target_id, coalesce(t.type, ''), n.wanted,
	       not n.wanted or (t.deleted_at is null and not (n.attribute in ('members', 'parent') and n.target_id = $2)
	         and coalesce(t.type = any (case n.attribute
	         when 'members' then array['User', 'Agent', 'Group']
	           when 'owners' then array['User', 'Group'] else array['Agent'] end), false)) allowed
	  from named n
	  left join resources t on t.tenant_id = $1 and t.id = n.target_id
	 where n.wanted <> exists (select 1 from edges e
	         where e.tenant_id = $1 and e.source_id = $2 and e.attribute = n.attribute and e.target_id = n.target_id)
	union all
	select e.attribute, e.target_id, t.type, false, true
	  from edges e join resources t on t.tenant_id = $1 and t.id = e.target_id
	 where $6 and e.tenant_id = $1 and e.source_id = $2 and e.attribute = 'members'
	   and not exists (select 1 from named n where n.wanted and n.target_id = e.target_id)`

// edgesBetween returns how the edges of two versions differ; before is nil for a new
// resource. Errors: schema.UnknownTargetError, directory.ErrParents.
func (tx *Tx) edgesBetween(ctx context.Context, before, after *directory.Resource) (edgeChange, error) {
	w := wanted(before, after)
	for _, skipped := range after.Members.Skipped {
		tx.ignore("members: " + skipped)
	}
	if len(w.targets) == 0 && !w.clear {
		return edgeChange{}, nil
	}
	var c edgeChange
	var refused error
	var e edge
	var added, allowed bool
	err := tx.send(ctx, database.Statement{
		SQL:  edgesSQL,
		Args: []any{tx.tenant, after.ID, orEmpty(w.attributes), orEmpty(w.targets), orEmpty(w.wanted), w.clear},
		Collect: database.Each([]any{&e.attribute, &e.target, &e.targetType, &added, &allowed}, func() {
			switch {
			case !allowed && after.Members.SkipUnknown && e.attribute == directory.EdgeMembers:
				tx.ignore("members: " + e.target.String())
			case !allowed && refused == nil:
				refused = &schema.UnknownTargetError{Attribute: e.attribute, Value: e.target.String()}
			case added:
				c.added = append(c.added, e)
			default:
				c.removed = append(c.removed, e)
			}
		}),
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return edgeChange{}, fmt.Errorf("look up edge targets: %w", err)
	}
	for _, e := range c.added {
		if e.attribute == directory.EdgeParent {
			err = tx.checkParents(ctx, after.ID, e.target)
		}
	}
	return c, err
}

// checkParents returns directory.ErrParents if parent has agent among its ancestors, or more
// than maxParents. Concurrent changes can still form a cycle; graph queries end at one.
func (tx *Tx) checkParents(ctx context.Context, agent, parent uuid.UUID) error {
	var above int
	err := tx.send(ctx, database.Statement{
		SQL: `select parents_above($1, $2, $3)`, Args: []any{tx.tenant, agent, parent}, Collect: database.Fields(&above),
	})
	switch {
	case err != nil:
		return fmt.Errorf("count the parents of %s: %w", parent, err)
	case above < 0 || above > maxParents:
		return fmt.Errorf("%w: agent %s, parent %s", directory.ErrParents, agent, parent)
	}
	return nil
}

// setEdges queues the rows of a change's edges, and invalidates the entitlements of
// members that enter or leave a group.
func (tx *Tx) setEdges(c *change) {
	if len(c.edges.removed) > 0 {
		attributes, targets := columns(c.edges.removed)
		tx.add(`
			delete from edges e using unnest($3::text[], $4::uuid[]) d (attribute, target_id)
			 where e.tenant_id = $1 and e.source_id = $2 and e.attribute = d.attribute
			   and e.target_id = d.target_id`, tx.tenant, c.after.ID, attributes, targets)
	}
	if len(c.edges.added) > 0 {
		attributes, targets := columns(c.edges.added)
		tx.add(`
			insert into edges (tenant_id, source_id, attribute, target_id)
			select $1, $2, a.attribute, a.target_id from unnest($3::text[], $4::uuid[]) a (attribute, target_id)`,
			tx.tenant, c.after.ID, attributes, targets)
	}
	if !c.edges.members() {
		return
	}
	var stale []invalidation
	for _, list := range [][]edge{c.edges.removed, c.edges.added} {
		for _, e := range list {
			i := invalidation{e.target, c.after.ID}
			if e.targetType == directory.TypeGroup { // all members of the group
				i.principal = tx.tenant
			}
			stale = append(stale, i)
		}
	}
	tx.invalidate(stale...)
}

func columns(edges []edge) (attributes []string, targets []uuid.UUID) {
	for _, e := range edges {
		attributes, targets = append(attributes, e.attribute), append(targets, e.target)
	}
	return attributes, targets
}
