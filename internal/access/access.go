// Package access answers whether a subject may act, from the state that SCIM commits
// have left in PostgreSQL: whatever Temporal does, an answer was true at the commit.
package access

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// Question is whether a subject may do an action on a resource.
type Question struct {
	SubjectType string // User or Agent
	Subject     string // SCIM id, userName or agentUserName
	// OnBehalfOf is the user for whom an agent acts, by SCIM id or userName; empty is
	// the agent itself.
	OnBehalfOf   string
	Action       string // a scope
	ResourceType string // credential, connector, team, or any other
	Resource     string
	Owner        string // of the resource, where the caller knows it
	// Through is set if the subject is the agent of context.agent, which acts for OnBehalfOf.
	// The reasons then name the agent and the user accordingly.
	Through bool
}

// Reason says why an answer is no, or Allow.
type Reason string

// The reasons.
//
//nolint:gosec // G101: their names speak of credentials, and are none
const (
	Allow               Reason = "allow"
	UnknownSubject      Reason = "unknown_subject"
	UnknownAgent        Reason = "unknown_agent"
	AgentSuspended      Reason = "agent_suspended"
	AgentExpired        Reason = "agent_expired"
	OwnerGone           Reason = "owner_gone"
	UnknownPrincipal    Reason = "unknown_principal"
	PrincipalRestricted Reason = "principal_restricted"
	NotDelegated        Reason = "not_delegated"
	UnknownCredential   Reason = "unknown_credential"
	CredentialEnded     Reason = "credential_ended"
	CredentialExpired   Reason = "credential_expired"
	ScopeMissing        Reason = "scope_missing"
	NoCredential        Reason = "no_credential"
	EntitlementLost     Reason = "entitlement_lost"
	NotEntitled         Reason = "not_entitled"
)

// Entitlements derives what a principal is entitled to now, whatever is stored.
type Entitlements interface {
	Live(ctx context.Context, tenant, principal uuid.UUID) ([]string, error)
}

// Store decides.
type Store struct {
	db           *database.DB
	entitlements Entitlements
}

// NewStore returns the store on db.
func NewStore(db *database.DB, entitlements Entitlements) *Store { return &Store{db, entitlements} }

// inDoubt comes before the id of whoever is entitled to nobody knows what: something
// was committed that has not been computed yet.
const inDoubt = "in_doubt:"

// Decide answers questions in their order, in one round trip where an agent may act for
// its owner, in two where there is a reason to tell, and in more where a change of
// groups, attributes or rules is just being computed. Without PostgreSQL there is no
// answer: database.ErrUnavailable.
func (s *Store) Decide(ctx context.Context, tenant uuid.UUID, questions ...Question) ([]Reason, error) {
	reasons := make([]Reason, len(questions))
	var quick, rest []database.Statement
	for i, q := range questions {
		if sql, args := q.quick(tenant); sql != "" {
			quick = append(quick, decision(sql, args, &reasons[i]))
		}
	}
	if err := s.ask(ctx, tenant, quick); err != nil {
		return nil, err
	}
	for i, q := range questions {
		if reasons[i] != Allow {
			rest = append(rest, decision("select "+decideSQL, q.args(tenant), &reasons[i]))
		}
	}
	if err := s.ask(ctx, tenant, rest); err != nil {
		return nil, err
	}
	for i, q := range questions {
		whose, doubted := strings.CutPrefix(string(reasons[i]), inDoubt)
		if !doubted {
			continue
		}
		if err := s.decideLive(ctx, tenant, q, whose, &reasons[i]); err != nil {
			return nil, fmt.Errorf("decide: %w", err)
		}
	}
	for i, q := range questions {
		switch {
		case q.Through && reasons[i] == UnknownSubject:
			reasons[i] = UnknownAgent
		case q.Through && reasons[i] == UnknownPrincipal:
			reasons[i] = UnknownSubject
		}
	}
	return reasons, nil
}

func (s *Store) ask(ctx context.Context, tenant uuid.UUID, statements []database.Statement) error {
	if len(statements) == 0 {
		return nil
	}
	var err error
	if len(statements) == 1 {
		// The commonest: what others ask at the time shares its round trip.
		err = database.Shared(ctx, s.db, tenant, "decisions", statements[0])
	} else {
		err = database.Together(ctx, s.db, tenant, statements...)
	}
	if err != nil {
		return fmt.Errorf("decide: %w", err)
	}
	return nil
}

// decideLive asks again, with what somebody is entitled to now.
func (s *Store) decideLive(ctx context.Context, tenant uuid.UUID, q Question, whose string, reason *Reason) error {
	who, err := uuid.Parse(whose)
	if err != nil {
		return err
	}
	live, err := s.entitlements.Live(ctx, tenant, who)
	if err != nil {
		return err
	}
	args := append(q.args(tenant), live)
	return database.Together(ctx, s.db, tenant, decision("select "+liveSQL, args, reason))
}

func decision(sql string, args []any, into *Reason) database.Statement {
	return database.Statement{SQL: sql, Args: args, Collect: func(rows pgx.Rows) error {
		// Without a row there is no reason, which is none to allow: nor is one that was
		// read before.
		*into = ""
		if rows.Next() {
			if err := rows.Scan(into); err != nil {
				return err
			}
		}
		rows.Close()
		return rows.Err()
	}}
}

const (
	decideSQL = `access_decision($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, null)`
	liveSQL   = `access_decision($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`

	// What is asked most is whether an agent may act for a user who owns it. Where
	// nothing stands against that, these say so, at a third of the cost; everything else,
	// and every reason, is the function's. Whoever is deleted is restricted for ever, and
	// only principals hold anything, so that the resources themselves need no look.
	ownerSQL = `
		 where o.tenant_id = $1 and o.source_id = $2 and o.attribute = 'owners' and o.target_id = $3
		   and not exists (select 1 from restrictions x where x.tenant_id = $1 and x.principal_id in ($2, $3))
		   and not exists (select 1 from validities v where v.tenant_id = $1 and v.principal_id = $2 and v.valid_until <= now())`
	credentialSQL = `select 'allow' from edges o
		  join inventory i on i.tenant_id = $1 and i.id = $5 and i.principal_id = $3 and i.agent_id = $2 and i.state = 'live'
		   and i.entitlement not like '%:%' and (i.expires_at is null or i.expires_at > now()) and (i.scopes = '{}' or $4 = any (i.scopes))` + ownerSQL
	scopeSQL = `select 'allow' from edges o
		  join entitlements e on e.tenant_id = $1 and e.principal_id = $3 and e.name = $4` + ownerSQL + `
		   and not exists (select 1 from doubts d where d.tenant_id = $1 and d.principal_id in ($1, $3))`
)

// args are those of [decideSQL].
func (q Question) args(tenant uuid.UUID) []any {
	subject, subjectName := idOrName(q.Subject)
	onBehalf, onBehalfName := idOrName(q.OnBehalfOf)
	if q.SubjectType != directory.TypeAgent {
		onBehalf, onBehalfName = nil, nil
	}
	return []any{
		tenant, q.SubjectType, subject, subjectName, onBehalf, onBehalfName, q.Action, q.ResourceType, q.Resource, orNull(q.Owner),
	}
}

// quick is the query that may allow at once, where there is one for the question.
func (q Question) quick(tenant uuid.UUID) (sql string, args []any) {
	agent, _ := idOrName(q.Subject)
	owner, _ := idOrName(q.OnBehalfOf)
	if q.SubjectType != directory.TypeAgent || agent == nil || owner == nil {
		return "", nil
	}
	switch q.ResourceType {
	case "connector", "team":
		return "", nil
	case "credential":
		item, _ := idOrName(q.Resource)
		if item == nil {
			return "", nil
		}
		return credentialSQL, []any{tenant, agent, owner, q.Action, item}
	}
	return scopeSQL, []any{tenant, agent, owner, "scope:" + q.Action}
}

// idOrName reads a SCIM id, or else a name, which are folded. Nobody's name can
// stand for another's id, since an id is tried as nothing else.
func idOrName(text string) (id, name any) {
	if text == "" {
		return nil, nil
	}
	if parsed, err := uuid.Parse(text); err == nil && len(text) == len(parsed.String()) {
		return parsed, nil
	}
	return nil, strings.ToLower(text)
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}
