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

// Store reads resources. Writes go through package lifecycle, which commits
// them together with what they mean.
type Store struct {
	db     *database.DB
	counts counts
}

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store { return &Store{db: db} }

// shown is what an answer needs of a row r of resources. The extensions come as words,
// which costs less than an array; no URN has a blank. Most users have no relations, and
// cost two index probes for that.
const shown = `r.id, r.document, r.version, r.created_at, r.modified_at, array_to_string(r.extensions, ' ') as extensions,
	case when r.type = 'Agent' or exists (select 1 from restrictions x where x.tenant_id = r.tenant_id and x.principal_id = r.id)
	       or exists (select 1 from edges m where m.tenant_id = r.tenant_id and m.target_id = r.id and m.attribute = 'members')
	     then relations_of(r.tenant_id, r.id) end as relations`

// relations are a resource's rows of other tables.
type relations struct {
	Restriction *Restriction `json:"restriction"`
	Groups      []Edge       `json:"groups"`
	Edges       []Edge       `json:"edges"`
}

// scanShown reads [shown], and what else was selected behind it.
func scanShown(row pgx.CollectableRow, r *Resource, others ...any) error {
	var related []byte
	var extensions string
	document := (*[]byte)(&r.Document)
	if err := row.Scan(append([]any{&r.ID, document, &r.Version, &r.Created, &r.Modified, &extensions, &related}, others...)...); err != nil {
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
		return fmt.Errorf("read the relations of a resource: %w", err)
	}
	r.Restriction, r.Groups, r.Edges = m.Restriction, m.Groups, m.Edges
	return nil
}

const getSQL = `select ` + shown + `, r.unique_name, r.display_name, r.external_id, r.active, r.valid_until
	  from resources r where r.tenant_id = $1 and r.id = $2 and r.type = $3 and r.deleted_at is null`

// Read returns the statement that reads a live resource into one, which stays the zero
// Resource where there is none.
func Read(tenant uuid.UUID, resourceType string, id uuid.UUID, into *Resource) database.Statement {
	return database.Statement{SQL: getSQL, Args: []any{tenant, id, resourceType}, Collect: func(rows pgx.Rows) error {
		*into = Resource{}
		for rows.Next() {
			var unique, display, external *string
			if err := scanShown(rows, into, &unique, &display, &external, &into.Active, &into.ValidUntil); err != nil {
				return err
			}
			into.Type, into.UniqueName, into.Display, into.ExternalID = resourceType, orEmpty(unique), orEmpty(display), orEmpty(external)
		}
		return rows.Err()
	}}
}

// Lock returns the statement that locks a resource's row until the end of the
// transaction. What is read after it is what the previous holder committed.
func Lock(tenant, id uuid.UUID) database.Statement {
	return database.Statement{SQL: `select 1 from resources where tenant_id = $1 and id = $2 for no key update`, Args: []any{tenant, id}}
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
