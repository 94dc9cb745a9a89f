// Package authzen decides whether a subject may act, from the committed state in PostgreSQL. Decisions
// do not depend on Temporal.
package authzen

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/database"
)

// Question asks whether a subject may perform an action on a resource. Principals are given by SCIM
// id or by any of their names (see [directory.Name]).
type Question struct {
	SubjectType string // User or Agent; AnyType for an identity
	Subject     string
	// OnBehalfOf is the principal of type OnBehalfOfType for which an agent acts; empty if the agent
	// acts for itself.
	OnBehalfOf     string
	OnBehalfOfType string // User, or AnyType for an identity
	// Issuers are those whose names are meant; the empty string is the directory.
	Issuers []string
	// Identity is set if the names are the sub and client_id of a token. A text in the form of an
	// id may then be a name, too.
	Identity bool
	// IssuedAt is when the token was issued; zero if that is not known.
	IssuedAt time.Time
	// AgentOptional is set if a missing or unknown context.agent is not a reason to deny.
	AgentOptional bool
	Action        string // a scope
	ResourceType  string // credential, connector, team, one of MCP's, or any other
	Resource      string
	Owner         string // of the resource, if the caller knows it
	// Through is set if the subject is the agent of context.agent, which acts for OnBehalfOf.
	// The reasons then name the agent and the user accordingly.
	Through bool
}

// AnyType is the type of a principal that may be a User or an Agent.
const AnyType = ""

// Reason is [Allow], or the reason to deny.
type Reason string

// The reasons.
//
//nolint:gosec // G101: the constants are not credentials
const (
	Allow               Reason = "allow"
	UnknownSubject      Reason = "unknown_subject"
	UnknownAgent        Reason = "unknown_agent"
	AgentMissing        Reason = "agent_missing"
	AmbiguousSubject    Reason = "ambiguous_subject"
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

// Entitlements evaluates the current entitlements of a principal, regardless of the stored
// ones.
type Entitlements interface {
	Live(ctx context.Context, tenant, principal uuid.UUID) ([]string, error)
}

// Store makes decisions.
type Store struct {
	db           *database.DB
	entitlements Entitlements
}

// NewStore returns the store on db.
func NewStore(db *database.DB, entitlements Entitlements) *Store { return &Store{db, entitlements} }

// Answer is the answer to a question.
type Answer struct {
	Reason Reason
	// Until is when a permit ends by itself: the end of the agent's validity or of the credential,
	// whichever is first; nil if neither ends.
	Until *time.Time
}

// Decide returns the answers to questions, in order. It takes one round trip, and more if a credential
// was granted under an entitlement or if a change of groups, attributes or rules has not been evaluated
// yet. Error: database.ErrUnavailable if PostgreSQL is unavailable.
func (s *Store) Decide(ctx context.Context, tenant uuid.UUID, questions ...Question) ([]Answer, error) {
	known := make([]facts, len(questions))
	var statements []database.Statement
	for i, q := range questions {
		statements = append(statements, known[i].read(tenant, q)...)
	}
	if err := database.Together(ctx, s.db, tenant, statements...); err != nil {
		return nil, fmt.Errorf("decide: %w", err)
	}
	answers := make([]Answer, len(questions))
	for i, q := range questions {
		reason, err := s.decide(ctx, tenant, &known[i], q)
		if err != nil {
			return nil, fmt.Errorf("decide: %w", err)
		}
		if answers[i].Reason = reason; reason == Allow {
			answers[i].Until = known[i].until(q)
		}
	}
	return answers, nil
}

// decide reads or evaluates the missing facts, reads the parties again, and decides.
func (s *Store) decide(ctx context.Context, tenant uuid.UUID, f *facts, q Question) (Reason, error) {
	reason := decide(*f, q)
	for reason == unread {
		err := database.Together(ctx, s.db, tenant, f.again(tenant, q), f.readMore(tenant, q))
		if err != nil {
			return "", err
		}
		reason = decide(*f, q)
	}
	if reason != stale {
		return reason, nil
	}
	live, err := s.entitlements.Live(ctx, tenant, f.principal.ID)
	if err == nil {
		err = database.Together(ctx, s.db, tenant, f.again(tenant, q))
	}
	if err != nil {
		return "", err
	}
	f.entitled.held, f.entitled.stale = live, false
	return decide(*f, q), nil
}
