package directory

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Keys are the comparison keys of a stored resource.
type Keys struct {
	UniqueName, ExternalID string
	Folded                 json.RawMessage
	// Unique are the values that must be unique in addition to the unique name, by attribute.
	Unique map[string]string
	// Names are the names of a User or an Agent. The two above are added if they are absent.
	Names []Name
}

// Keyer returns the keys of a tenant's stored documents of a resource type.
type Keyer func(resourceType string, document []byte) (Keys, error)

// Collision is a value that two resources of one type share, and that an older version stored
// as two different values. The resource keeps its old key: filters do not find it by the value, and a
// request that changes the value gets a uniqueness error.
type Collision struct {
	Tenant, Attribute, Value string
	ID, Other                uuid.UUID
}

// String returns a message that names both resources and the next step.
func (c Collision) String() string {
	return fmt.Sprintf("tenant %s: %s %q of %s is also that of %s: rename or delete one of them", c.Tenant,
		c.Attribute, c.Value, c.ID, c.Other)
}

// refoldBatch bounds how many resources are changed in one transaction.
const refoldBatch = 500

// outdatedSQL is the condition for a live resource r whose keys or names are not stored: every
// User and Agent has a name.
const outdatedSQL = `r.deleted_at is null and (r.folded is null or r.type <> 'Group' and not exists (
	select 1 from principal_names n where n.tenant_id = r.tenant_id and n.principal_id = r.id))`

// Refold stores the comparison keys and names of the resources that have none. conn must have the rights
// of the owner of the tables; keyer returns the [Keyer] of a tenant. It can be repeated.
func Refold(ctx context.Context, conn *pgx.Conn,
	keyer func(ctx context.Context, tenant uuid.UUID) (Keyer, error),
) (n int, collisions []Collision, err error) {
	rows, err := conn.Query(ctx, `select id, name from tenants t
		where exists (select 1 from resources r where r.tenant_id = t.id and `+outdatedSQL+`) order by name`)
	if err != nil {
		return 0, nil, fmt.Errorf("list tenants: %w", err)
	}
	type named struct {
		ID   uuid.UUID
		Name string
	}
	tenants, err := pgx.CollectRows(rows, pgx.RowToStructByPos[named])
	if err != nil {
		return 0, nil, fmt.Errorf("list tenants: %w", err)
	}
	for _, t := range tenants {
		keys, err := keyer(ctx, t.ID)
		if err != nil {
			return n, collisions, fmt.Errorf("tenant %s: %w", t.Name, err)
		}
		var last uuid.UUID
		for done := refoldBatch; done == refoldBatch; n += done {
			var found []Collision
			err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) (err error) {
				done, last, found, err = refoldSome(ctx, tx, t.ID, last, keys)
				return err
			})
			if err != nil {
				return n, collisions, fmt.Errorf("tenant %s: %w", t.Name, err)
			}
			for i := range found {
				found[i].Tenant = t.Name
			}
			collisions = append(collisions, found...)
		}
	}
	return n, collisions, nil
}

// unfolded is a stored resource without keys.
type unfolded struct {
	ID       uuid.UUID
	Type     string
	Document []byte
}

// refoldSome handles a batch of resources whose ids follow after. It returns their number and the
// last id.
func refoldSome(ctx context.Context, tx pgx.Tx, tenant, after uuid.UUID,
	keyer Keyer,
) (done int, last uuid.UUID, collisions []Collision, err error) {
	rows, err := tx.Query(ctx, `select r.id, r.type, r.document from resources r
		where r.tenant_id = $1 and r.id > $3 and `+outdatedSQL+` order by r.id limit $2 for no key update`,
		tenant, refoldBatch, after)
	if err != nil {
		return 0, after, nil, err
	}
	batch, err := pgx.CollectRows(rows, pgx.RowToStructByPos[unfolded])
	if err != nil {
		return 0, after, nil, err
	}
	for _, r := range batch {
		keys, err := keyer(r.Type, r.Document)
		if err != nil {
			return 0, after, nil, fmt.Errorf("%s %s: %w", r.Type, r.ID, err)
		}
		found, err := refoldOne(ctx, tx, tenant, r, keys)
		if err != nil {
			return 0, after, nil, fmt.Errorf("%s %s: %w", r.Type, r.ID, err)
		}
		collisions, after = append(collisions, found...), r.ID
	}
	return len(batch), after, collisions, nil
}

func refoldOne(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, r unfolded,
	keys Keys,
) (collisions []Collision, err error) {
	var taken *uuid.UUID
	err = tx.QueryRow(ctx, `
		with taken as (
		  select o.id from resources o
		   where o.tenant_id = $1 and o.type = $3 and o.unique_name = nullif($4, '') and o.id <> $2 and o.deleted_at is null)
		update resources set folded = $6, external_id = nullif($5, ''),
		       unique_name = case when exists (select 1 from taken) then unique_name else nullif($4, '') end
		 where tenant_id = $1 and id = $2
		returning (select id from taken)`, tenant, r.ID, r.Type, keys.UniqueName, keys.ExternalID, keys.Folded).Scan(&taken)
	if err != nil {
		return nil, err
	}
	if taken != nil {
		collisions = append(collisions, Collision{Attribute: "unique name", Value: keys.UniqueName, ID: r.ID, Other: *taken})
	}
	if r.Type != TypeGroup {
		kinds, issuers, values, originals := NameColumns(keys.all(r.Type))
		if _, err := tx.Exec(ctx, `
			insert into principal_names (tenant_id, principal_id, kind, issuer, value, original, position, since)
			select $1, $2, n.kind, n.issuer, n.value, n.original, n.position, '-infinity'
			  from unnest($3::text[], $4::text[], $5::text[], $6::text[])
			       with ordinality n (kind, issuer, value, original, position)
			on conflict do nothing`, tenant, r.ID, kinds, issuers, values, originals); err != nil {
			return nil, err
		}
	}
	for attribute, value := range keys.Unique {
		err = tx.QueryRow(ctx, `
			with taken as (
			  select u.resource_id from unique_values u
			   where u.tenant_id = $1 and u.type = $3 and u.attribute = $4 and u.value = $5 and u.resource_id <> $2),
			changed as (
			  update unique_values set value = $5
			   where tenant_id = $1 and type = $3 and attribute = $4 and resource_id = $2 and value <> $5
			     and not exists (select 1 from taken))
			select (select resource_id from taken)`, tenant, r.ID, r.Type, attribute, value).Scan(&taken)
		if err != nil {
			return nil, err
		}
		if taken != nil {
			collisions = append(collisions, Collision{Attribute: attribute, Value: value, ID: r.ID, Other: *taken})
		}
	}
	return collisions, nil
}
