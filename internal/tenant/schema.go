package tenant

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
)

// Schema is an extension schema that a tenant declared. Package scim validates its definition.
type Schema struct {
	URN          string          `json:"urn"`
	ResourceType string          `json:"resourceType"`
	Definition   json.RawMessage `json:"schema"` // RFC 7643 section 7
}

// The errors of schemas.
var (
	ErrSchemaNotFound = fault.New(fault.NotFound, "the tenant has no such schema")
	// ErrSchemaInUse is returned for a schema of which resources have values.
	ErrSchemaInUse = fault.New(fault.Conflict, "resources have values of the schema: remove the values first")
)

const schemasSQL = `select urn, resource_type, definition from tenant_schemas where tenant_id = $1 order by urn`

// Schemas lists a tenant's own schemas, by URN.
func (s *Store) Schemas(ctx context.Context, tenant uuid.UUID) ([]Schema, error) {
	schemas, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[Schema], schemasSQL, tenant)
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	return schemas, nil
}

// PutSchema creates or replaces the schema that check returns. check gets the tenant's existing schemas,
// under a lock, and may return an error.
func (s *Store) PutSchema(
	ctx context.Context, tenant uuid.UUID, schema Schema, check func(declared Schema, existing []Schema) (Schema, error),
) (Schema, error) {
	err := s.changeSchemas(ctx, tenant, func(tx pgx.Tx) error {
		existing, err := ReadSchemas(ctx, tx, tenant)
		if err != nil {
			return err
		}
		if schema, err = check(schema, existing); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `
			insert into tenant_schemas (tenant_id, urn, resource_type, definition) values ($1, $2, $3, $4)
			on conflict (tenant_id, urn) do update
			  set resource_type = excluded.resource_type, definition = excluded.definition`,
			tenant, schema.URN, schema.ResourceType, schema.Definition)
		if err != nil {
			return err
		}
		var before any
		for _, s := range existing {
			if s.URN == schema.URN {
				before = s
			}
		}
		return audit.Record(ctx, tx, tenant, audit.SchemaPut, schema.URN, before, schema)
	})
	return schema, err
}

// DeleteSchema deletes a schema that no resource uses. check gets the remaining schemas, under a lock,
// and may return an error.
// Errors: [ErrSchemaNotFound], [ErrSchemaInUse], and check's.
func (s *Store) DeleteSchema(ctx context.Context, tenant uuid.UUID, urn string, check func(left []Schema) error) error {
	return s.changeSchemas(ctx, tenant, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `delete from tenant_schemas where tenant_id = $1 and urn = $2`, tenant, urn)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return ErrSchemaNotFound
		}
		if err := audit.Record(ctx, tx, tenant, audit.SchemaDelete, urn, nil, nil); err != nil {
			return err
		}
		var used bool
		err = tx.QueryRow(ctx, `
			select exists (select 1 from resources where tenant_id = $1 and $2 = any (extensions) and deleted_at is null)`,
			tenant, urn).Scan(&used)
		if err == nil && used {
			return ErrSchemaInUse
		}
		if err != nil {
			return err
		}
		left, err := ReadSchemas(ctx, tx, tenant)
		if err != nil {
			return err
		}
		return check(left)
	})
}

// querier is a transaction, or a connection as the owner of the tables.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// ReadSchemas returns a tenant's schemas as the transaction sees them, by URN.
func ReadSchemas(ctx context.Context, on querier, tenant uuid.UUID) ([]Schema, error) {
	rows, err := on.Query(ctx, schemasSQL, tenant)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Schema])
}

// LockSchemas returns a tenant's schemas, and prevents changes of them until the transaction ends.
func LockSchemas(ctx context.Context, tx pgx.Tx, tenant uuid.UUID) ([]Schema, error) {
	if _, err := tx.Exec(ctx, `update tenants set schema_version = schema_version where id = $1`, tenant); err != nil {
		return nil, err
	}
	return ReadSchemas(ctx, tx, tenant)
}

// changeSchemas runs a change of a tenant's schemas, one at a time.
func (s *Store) changeSchemas(ctx context.Context, tenant uuid.UUID, change func(pgx.Tx) error) error {
	err := s.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `update tenants set schema_version = schema_version + 1 where id = $1`, tenant)
		if err != nil {
			return err
		}
		return change(tx)
	})
	if err != nil {
		return fmt.Errorf("change schemas: %w", err)
	}
	s.notifyChanged()
	return nil
}
