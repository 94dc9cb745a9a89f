package directory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/coalesce"
	"github.com/leaverhq/leaver/internal/database"
)

// Store reads resources. Writes go through package lifecycle, which commits
// them together with what they mean.
type Store struct {
	db       *database.DB
	counts   counts
	requests *coalesce.Group[uuid.UUID, *request]
}

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store {
	s := &Store{db: db}
	s.requests = coalesce.NewGroup(s.get)
	return s
}

// ShownColumns are those of a row r of resources that an answer needs. The extensions
// come as words, which costs less than an array does; no URN has a blank.
const ShownColumns = `r.id, r.document, r.version, r.created_at, r.modified_at, array_to_string(r.extensions, ' ') as extensions`

// shown is what an answer needs of a resource.
const shown = ShownColumns + `, case when not r.plain then more_about(r.tenant_id, r.id) end`

// more is what stands in other tables.
type more struct {
	Restriction *Restriction `json:"restriction"`
	Groups      []Edge       `json:"groups"`
	Edges       []Edge       `json:"edges"`
}

// ScanShown reads [ShownColumns], more_about a resource that is not plain, and what else
// was selected behind these.
func ScanShown(row pgx.CollectableRow, r *Resource, others ...any) error {
	var about []byte
	var extensions string
	document := (*[]byte)(&r.Document)
	if err := row.Scan(append([]any{&r.ID, document, &r.Version, &r.Created, &r.Modified, &extensions, &about}, others...)...); err != nil {
		return err
	}
	if extensions != "" {
		r.Extensions = strings.Fields(extensions)
	}
	if about == nil {
		return nil
	}
	var m more
	if err := json.Unmarshal(about, &m); err != nil {
		return fmt.Errorf("read more about a resource: %w", err)
	}
	r.Restriction, r.Groups, r.Edges = m.Restriction, m.Groups, m.Edges
	return nil
}

// request is a resource that somebody asks for.
type request struct {
	ID    uuid.UUID `json:"id"`
	found *Resource // nil where there is none
}

// Get returns a live resource of the type. Error: [ErrNotFound].
func (s *Store) Get(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID) (*Resource, error) {
	r := &request{ID: id}
	err := s.requests.Do(ctx, tenant, r)
	if errors.Is(err, coalesce.ErrAlone) {
		err = s.get(ctx, tenant, []*request{r})[0]
	}
	if err != nil {
		return nil, fmt.Errorf("get %s %s: %w", resourceType, id, err)
	}
	if r.found == nil || r.found.Type != resourceType {
		return nil, fmt.Errorf("%s %s: %w", resourceType, id, ErrNotFound)
	}
	return r.found, nil
}

// Each id is looked up by itself: the planner takes the function for a hundred rows
// whatever it is given, and would rather read a small table whole for those.
const getSQL = `select r.* from jsonb_to_recordset($2) i (id uuid) cross join lateral (
	  select ` + shown + `, r.type, r.unique_name, r.display_name, r.external_id, r.active
	    from resources r where r.tenant_id = $1 and r.id = i.id and r.deleted_at is null offset 0) r`

// get answers requests that came at a time.
func (s *Store) get(ctx context.Context, tenant uuid.UUID, requests []*request) []error {
	byID := make(map[uuid.UUID][]*request, len(requests))
	var distinct []*request
	for _, r := range requests {
		if byID[r.ID] == nil {
			distinct = append(distinct, r)
		}
		byID[r.ID] = append(byID[r.ID], r)
	}
	err := database.Quick(ctx, s.db, tenant, len(requests), database.Statement{SQL: getSQL, Args: []any{tenant, distinct}, Collect: func(rows pgx.Rows) error {
		for _, r := range requests {
			r.found = nil // of an attempt that failed
		}
		for rows.Next() {
			var r Resource
			var unique, display, external *string
			if err := ScanShown(rows, &r, &r.Type, &unique, &display, &external, &r.Active); err != nil {
				return err
			}
			r.UniqueName, r.Display, r.ExternalID = orEmpty(unique), orEmpty(display), orEmpty(external)
			for _, request := range byID[r.ID] {
				own := r
				request.found = &own
			}
		}
		return rows.Err()
	}})
	return coalesce.All(err, len(requests))
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// CheckTargets looks at the edges that attributes and targets are, pair by pair.
// It returns an [UnknownTargetError] for one whose target is no live resource of a
// type that the attribute may lead to. Nothing contains itself. Where an edge leads to one that was deleted since, saying it again is no error.
func CheckTargets(ctx context.Context, db *database.DB, tenant, source uuid.UUID, attributes []string, targets []uuid.UUID) error {
	if len(targets) == 0 {
		return nil
	}
	missing, err := database.Once(ctx, db, tenant, func(rows pgx.Rows) ([]*UnknownTargetError, error) {
		return pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[UnknownTargetError])
	}, `
		select w.attribute, w.target_id::text from unnest($3::text[], $4::uuid[]) w (attribute, target_id)
		 where (w.attribute in ('members', 'parent') and w.target_id = $2)
		    or not exists (select 1 from resources t where t.tenant_id = $1 and t.id = w.target_id and `+mayLead+`
		         and (t.deleted_at is null or exists (select 1 from edges e
		              where e.tenant_id = $1 and e.source_id = $2 and e.attribute = w.attribute and e.target_id = w.target_id)))
		 limit 1`, tenant, source, attributes, targets)
	if err != nil {
		return fmt.Errorf("look for the targets of edges: %w", err)
	}
	if len(missing) > 0 {
		return missing[0]
	}
	if at := slices.Index(attributes, EdgeParent); at >= 0 {
		return checkParents(ctx, db, tenant, source, targets[at])
	}
	return nil
}

// maxParents bounds how deep agents nest.
const maxParents = 32

// checkParents refuses a parent whose own parents lead back, or too far up. Two
// changes at a time may still close a circle; whoever walks one stops at it.
func checkParents(ctx context.Context, db *database.DB, tenant, agent, parent uuid.UUID) error {
	above, err := database.Once(ctx, db, tenant, func(rows pgx.Rows) (int, error) {
		return pgx.CollectExactlyOneRow(rows, pgx.RowTo[int])
	}, `select parents_above($1, $2, $3)`, tenant, agent, parent)
	switch {
	case err != nil:
		return fmt.Errorf("look at the parents of %s: %w", parent, err)
	case above < 0 || above > maxParents:
		return ErrParents
	}
	return nil
}

// mayLead tells whether an edge w may lead to a resource t.
const mayLead = `t.type = any (case w.attribute
	when 'members' then array['User', 'Agent', 'Group'] when 'owners' then array['User', 'Group'] else array['Agent'] end)`
