package directory

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

// Store reads resources. Writes go through package lifecycle, which commits them with their
// restrictions and events.
type Store struct {
	db     *database.DB
	counts counts
}

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store { return &Store{db: db, counts: newCounts()} }

// shown are the columns of a response from a row r of resources. The extensions are joined by
// spaces, which costs less than an array; a URN contains no space. Most users have no
// relations; checking that costs two index probes.
const shown = `r.id, r.document, r.version, r.created_at, r.modified_at,
	array_to_string(r.extensions, ' ') as extensions,
	case when r.type = 'Agent' or exists (select 1 from restrictions x where x.tenant_id = r.tenant_id
	  and x.principal_id = r.id)
	       or exists (select 1 from edges m where m.tenant_id = r.tenant_id and m.target_id = r.id
	         and m.attribute = 'members')
	     then relations_of(r.tenant_id, r.id) end as relations`

// relations are a resource's rows in other tables.
type relations struct {
	Restriction *Restriction `json:"restriction"`
	Groups      []Edge       `json:"groups"`
	Edges       []Edge       `json:"edges"`
}

// scanShown scans [shown], followed by others.
func scanShown(row pgx.CollectableRow, r *Resource, others ...any) error {
	var related []byte
	var extensions string
	document := (*[]byte)(&r.Document)
	if err := row.Scan(append([]any{&r.ID, document, &r.Version, &r.Created, &r.Modified, &extensions, &related},
		others...)...); err != nil {
		return err
	}
	if extensions != "" {
		r.Extensions = strings.Fields(extensions)
	}
	if related == nil {
		return nil
	}
	var m relations
	if err := json.Unmarshal(related, &m); err != nil {
		return fmt.Errorf("decode the relations of a resource: %w", err)
	}
	r.Restriction, r.Groups, r.Edges = m.Restriction, m.Groups, m.Edges
	return nil
}

const (
	readColumns = `select ` + shown + `, r.unique_name, r.display_name, r.external_id, r.active, r.valid_until`
	readSQL     = readColumns + ` from resources r where r.tenant_id = $1 and r.id = $2 and r.type = $3
		and r.deleted_at is null`
	lockSQL = readColumns + `,
		r.version <> (select b.version from resources b where b.tenant_id = r.tenant_id and b.id = r.id),
		exists (select 1 from mappings m where m.tenant_id = r.tenant_id), exists (select 1 from streams s
		  where s.tenant_id = r.tenant_id)
		from resources r where r.tenant_id = $1 and r.id = $2 and r.type = $3 and r.deleted_at is null for no key update of r`
)

// Read returns the statement that reads a live resource into its last argument, which becomes
// the zero Resource if there is none.
func Read(tenant uuid.UUID, resourceType string, id uuid.UUID, into *Resource) database.Statement {
	return read(readSQL, tenant, resourceType, id, into)
}

// Locked is a resource whose row is locked until the end of the transaction.
type Locked struct {
	Resource
	// Outdated: the row changed while waiting for the lock. The resource must be read again,
	// since its restriction may be outdated.
	Outdated bool
	// HasRules and HasStreams are whether the tenant has mapping rules and streams.
	HasRules, HasStreams bool
}

// Lock returns the statement of [Read] that also locks the row.
func Lock(tenant uuid.UUID, resourceType string, id uuid.UUID, into *Locked) database.Statement {
	return read(lockSQL, tenant, resourceType, id, &into.Resource, &into.Outdated, &into.HasRules, &into.HasStreams)
}

func read(sql string, tenant uuid.UUID, resourceType string, id uuid.UUID, into *Resource,
	others ...any,
) database.Statement {
	return database.Statement{SQL: sql, Args: []any{tenant, id, resourceType}, Collect: func(rows pgx.Rows) error {
		*into = Resource{}
		for rows.Next() {
			var unique, display, external *string
			fields := append([]any{&unique, &display, &external, &into.Active, &into.ValidUntil}, others...)
			if err := scanShown(rows, into, fields...); err != nil {
				return err
			}
			into.Type, into.UniqueName, into.Display, into.ExternalID = resourceType, orEmpty(unique),
				orEmpty(display), orEmpty(external)
		}
		return rows.Err()
	}}
}

// Get returns a live resource of the type. Error: [ErrNotFound].
func (s *Store) Get(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID) (*Resource, error) {
	var r Resource
	if err := database.Together(ctx, s.db, tenant, Read(tenant, resourceType, id, &r)); err != nil {
		return nil, fmt.Errorf("get %s %s: %w", resourceType, id, err)
	}
	if r.ID == uuid.Nil {
		return nil, fmt.Errorf("%s %s: %w", resourceType, id, ErrNotFound)
	}
	return &r, nil
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
