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
}

// Reason says why an answer is no, or Allow.
type Reason string

// The reasons.
//
//nolint:gosec // G101: their names speak of credentials, and are none
const (
	Allow               Reason = "allow"
	UnknownSubject      Reason = "unknown_subject"
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

// Store decides.
type Store struct{ db *database.DB }

// NewStore returns the store on db.
func NewStore(db *database.DB) *Store { return &Store{db} }

// Decide answers questions in their order, in one round trip. Without PostgreSQL
// there is no answer: database.ErrUnavailable.
func (s *Store) Decide(ctx context.Context, tenant uuid.UUID, questions ...Question) ([]Reason, error) {
	reasons := make([]Reason, len(questions))
	statements := make([]database.Statement, len(questions))
	for i, q := range questions {
		statements[i] = database.Statement{
			SQL: `select access_decision($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, Args: q.args(tenant),
			Collect: func(rows pgx.Rows) (err error) {
				reasons[i], err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[Reason])
				return err
			},
		}
	}
	if len(statements) == 0 {
		return reasons, nil
	}
	if err := database.Together(ctx, s.db, tenant, statements...); err != nil {
		return nil, fmt.Errorf("decide: %w", err)
	}
	return reasons, nil
}

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
