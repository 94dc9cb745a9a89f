package directory

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Insert stores a new resource with its edges.
// Errors: [ErrNameTaken], [UnknownTargetError].
func Insert(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, r *Resource) error {
	_, err := tx.Exec(ctx, `
		insert into resources (tenant_id, id, type, unique_name, display_name, external_id, active, version, document, created_at, modified_at)
		values ($1, $2, $3, nullif($4, ''), nullif($5, ''), nullif($6, ''), $7, $8, $9, $10, $11)`,
		tenant, r.ID, r.Type, r.UniqueName, r.Display, r.ExternalID, r.Active, r.Version, r.Document, r.Created, r.Modified)
	if database.IsUniqueViolation(err, "resources_unique_name") {
		return ErrNameTaken
	}
	if err != nil {
		return err
	}
	return replaceEdges(ctx, tx, tenant, r, nil)
}

// Update stores the changed resource in place of what [Lock] returned.
// Errors: [ErrNameTaken], [UnknownTargetError].
func Update(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, before, after *Resource) error {
	_, err := tx.Exec(ctx, `
		update resources set unique_name = nullif($3, ''), display_name = nullif($4, ''), external_id = nullif($5, ''),
		       active = $6, version = $7, document = $8, modified_at = $9
		 where tenant_id = $1 and id = $2`,
		tenant, after.ID, after.UniqueName, after.Display, after.ExternalID, after.Active, after.Version, after.Document, after.Modified)
	if database.IsUniqueViolation(err, "resources_unique_name") {
		return ErrNameTaken
	}
	if err != nil {
		return err
	}
	return replaceEdges(ctx, tx, tenant, after, before.Edges)
}

// Tombstone deletes a resource: its name is free again, its id is not, and its
// edges stay, since the cascade walks them.
func Tombstone(ctx context.Context, tx pgx.Tx, tenant, id uuid.UUID, at time.Time) error {
	_, err := tx.Exec(ctx, `
		update resources set deleted_at = $3, modified_at = $3, version = version + 1, active = false
		 where tenant_id = $1 and id = $2`, tenant, id, at)
	return err
}

// replaceEdges writes the difference, so that a change of one member of a large
// group touches one row.
func replaceEdges(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, r *Resource, before []Edge) error {
	type key struct {
		attribute string
		target    uuid.UUID
	}
	old := make(map[key]bool, len(before))
	for _, e := range before {
		old[key{e.Attribute, e.Target}] = true
	}
	var addAttributes, dropAttributes []string
	var addTargets, dropTargets []uuid.UUID
	for _, e := range r.Edges {
		k := key{e.Attribute, e.Target}
		if old[k] {
			delete(old, k)
			continue
		}
		addAttributes, addTargets = append(addAttributes, e.Attribute), append(addTargets, e.Target)
	}
	for k := range old {
		dropAttributes, dropTargets = append(dropAttributes, k.attribute), append(dropTargets, k.target)
	}
	if len(dropTargets) > 0 {
		if _, err := tx.Exec(ctx, `
			delete from edges e using unnest($3::text[], $4::uuid[]) d (attribute, target_id)
			 where e.tenant_id = $1 and e.source_id = $2 and e.attribute = d.attribute and e.target_id = d.target_id`,
			tenant, r.ID, dropAttributes, dropTargets); err != nil {
			return err
		}
	}
	return insertEdges(ctx, tx, tenant, r.ID, addAttributes, addTargets)
}

func insertEdges(ctx context.Context, tx pgx.Tx, tenant, source uuid.UUID, attributes []string, targets []uuid.UUID) error {
	if len(targets) == 0 {
		return nil
	}
	var attribute, missing *string
	err := tx.QueryRow(ctx, `
		with wanted as (select distinct * from unnest($3::text[], $4::uuid[]) w (attribute, target_id)),
		allowed as (
		  select w.* from wanted w join resources t on t.tenant_id = $1 and t.id = w.target_id and t.deleted_at is null
		   where t.type = any (case w.attribute
		     when 'members' then array['User', 'Agent', 'Group'] when 'owners' then array['User', 'Group'] else array['Agent'] end)
		     and not (w.attribute in ('members', 'parent') and w.target_id = $2)),
		added as (insert into edges (tenant_id, source_id, attribute, target_id)
		  select $1, $2, attribute, target_id from allowed on conflict do nothing)
		select w.attribute, w.target_id::text from wanted w
		 where not exists (select 1 from allowed a where a.attribute = w.attribute and a.target_id = w.target_id) limit 1`,
		tenant, source, attributes, targets).Scan(&attribute, &missing)
	if err == pgx.ErrNoRows { //nolint:errorlint // QueryRow returns it bare
		return nil
	}
	if err != nil {
		return err
	}
	return &UnknownTargetError{Attribute: *attribute, Value: *missing}
}
