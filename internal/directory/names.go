package directory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/textkey"
)

// Name is one name of a principal, as a token or a platform carries it.
type Name struct {
	Kind   string `json:"kind"`             // the SCIM attribute that has it, one of those below
	Issuer string `json:"issuer,omitempty"` // the authorization server of a client_id; empty is the directory
	Value  string `json:"value"`            // its comparison key
	// Original is the value as it was given, for writes only; empty is the same as Value.
	Original string `json:"-" db:"-"`
}

// The attributes that name Users and Agents, besides the id.
const (
	NameUserName      = "userName"
	NameAgentUserName = "agentUserName"
	NameExternalID    = "externalId"
	NameEmail         = "emails"
	NameSubject       = "subject"
	NameClient        = "oAuthClientIdentifiers"
)

// IsNameAttribute reports whether a SCIM attribute names principals.
func IsNameAttribute(attribute string) bool {
	return slices.Contains([]string{
		NameUserName, NameAgentUserName, NameExternalID, NameEmail, NameSubject, NameClient,
	}, attribute)
}

// AllNames returns the names of a User or an Agent.
func (r *Resource) AllNames() []Name {
	return Keys{UniqueName: r.UniqueName, ExternalID: r.ExternalID, Names: r.Names}.all(r.Type)
}

func (k Keys) all(resourceType string) []Name {
	unique := NameUserName
	if resourceType == TypeAgent {
		unique = NameAgentUserName
	}
	names := slices.Clone(k.Names)
	for kind, value := range map[string]string{unique: k.UniqueName, NameExternalID: k.ExternalID} {
		given := slices.ContainsFunc(names, func(n Name) bool { return n.Kind == kind })
		if value != "" && !given {
			names = append(names, Name{Kind: kind, Value: value})
		}
	}
	return names
}

// NameColumns returns the kinds, issuers, values and originals of names, which the table has as columns.
func NameColumns(names []Name) (kinds, issuers, values, originals []string) {
	kinds, issuers, values, originals = []string{}, []string{}, []string{}, []string{}
	for _, n := range names {
		kinds, issuers, values = append(kinds, n.Kind), append(issuers, n.Issuer), append(values, n.Value)
		originals = append(originals, cmp.Or(n.Original, n.Value))
	}
	return kinds, issuers, values, originals
}

// Names returns the current names of a principal.
func (s *Store) Names(ctx context.Context, tenant, principal uuid.UUID) ([]Name, error) {
	names, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByName[Name], `
		select kind, issuer, value from principal_names
		 where tenant_id = $1 and principal_id = $2 and until is null order by kind, issuer, value`, tenant, principal)
	if err != nil {
		return nil, fmt.Errorf("list the names of %s: %w", principal, err)
	}
	return names, nil
}

// formerName is for how long a downstream is asked for a name that its holder lost, for example by deletion.
const formerName = 30 * 24 * time.Hour

// Principals returns principals with the names by which a downstream may know them: user names and e-mail addresses
// that no other principal of the tenant has or lately had. Those of one cascade (related) may share names. A name in
// the form of a SCIM id, and names that are compared with case, are left out: a downstream's spelling would give them
// to another principal.
func (s *Store) Principals(
	ctx context.Context, tenant uuid.UUID, ids []uuid.UUID, related bool,
) ([]connectors.Principal, error) {
	principals, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByName[connectors.Principal], `
		select p.id, array(
		  select distinct n.original from principal_names n
		   where n.tenant_id = $1 and n.principal_id = p.id and n.kind = any ($3)
		     and n.value !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
		     and (n.until is null or n.until > now() - $4::interval)
		     and not exists (
		       select 1 from principal_names o
		        where o.tenant_id = $1 and o.value = n.value and o.principal_id <> p.id
		          and not ($5 and o.principal_id = any ($2))
		          and (o.until is null or o.until > now() - $4::interval))) names
		  from unnest($2::uuid[]) with ordinality p (id, position) order by p.position`,
		tenant, ids, []string{NameUserName, NameAgentUserName, NameEmail}, formerName, related)
	if err != nil {
		return nil, fmt.Errorf("read the names of principals: %w", err)
	}
	return principals, nil
}

// Reference is what a caller calls a principal: a SCIM id or one of its names.
type Reference struct {
	Type string // User or Agent; empty is either
	// Issuers are those whose names are meant; the empty string stands for the directory.
	Issuers []string
	Value   string
	// Claim is set if the value is a claim of a token: an e-mail address is then a name like others.
	Claim bool
	// IssuedAt is when the token was issued, if that is known: the holder at that time is meant.
	IssuedAt time.Time
	// Kinds limits the attributes; nil is all.
	Kinds []string
}

// ParseID reads a SCIM id in its canonical form.
func ParseID(text string) (uuid.UUID, bool) {
	id, err := uuid.Parse(text)
	return id, err == nil && len(text) == len(id.String())
}

// Keys returns the id that the value may be, and its comparison keys.
func (r Reference) Keys() (id *uuid.UUID, folded, exact string) {
	if parsed, ok := ParseID(r.Value); ok {
		id = &parsed
	}
	return id, textkey.Fold(r.Value), textkey.Exact(r.Value)
}

// Resolve returns the live principal that a reference names. Without the time of the token, a name that
// another principal lost within a day names neither.
// Errors: [ErrNotFound], [ErrAmbiguousSubject].
func (s *Store) Resolve(ctx context.Context, tenant uuid.UUID, ref Reference) (Named, error) {
	id, folded, exact := ref.Keys()
	var issued *time.Time
	if !ref.IssuedAt.IsZero() {
		issued = &ref.IssuedAt
	}
	return s.resolve(ctx, tenant, `principals_named($1, $2, $3, $4, $5, $6, $7, $8, $9)`, ref.Type, ref.Issuers, id,
		folded, exact, ref.Claim, issued, ref.Kinds)
}

// ResolveAgent returns the agent that a reference names and that acts for a principal.
// Errors: [ErrNotFound], [ErrAmbiguousSubject].
func (s *Store) ResolveAgent(ctx context.Context, tenant, principal uuid.UUID, ref Reference) (Named, error) {
	id, folded, exact := ref.Keys()
	return s.resolve(ctx, tenant, `agents_acting($1, $2, $3, $4, $5, $6)`, principal, ref.Issuers, id, folded, exact)
}

// resolve returns the only principal whose id the function returns.
func (s *Store) resolve(ctx context.Context, tenant uuid.UUID, function string, args ...any) (Named, error) {
	found, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[Named],
		named+`r.id = any (array(select unnest(`+function+`)))`, append([]any{tenant}, args...)...)
	switch {
	case err != nil:
		return Named{}, fmt.Errorf("resolve a principal: %w", err)
	case len(found) == 0:
		return Named{}, ErrNotFound
	case len(found) > 1:
		return Named{}, ErrAmbiguousSubject
	}
	return found[0], nil
}
