package authzen

import (
	"context"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/tenant"
)

// Request is what a caller with an access token asks for. A resource has the type and the id of AuthZEN.
type Request struct{ Action, ResourceType, Resource string }

// DecideToken decides whether the subject of a verified access token may make a request through the
// client of the token. Error: database.ErrUnavailable if PostgreSQL is unavailable.
func (s *Store) DecideToken(ctx context.Context, of tenant.Tenant, t auth.Access, r Request) (Answer, error) {
	if httpjson.HasControl(t.Subject, t.Client, r.Action, r.ResourceType, r.Resource) {
		return Answer{Reason: UnknownSubject}, nil
	}
	by := auth.Caller{Tenant: of, Issuer: t.Issuer}
	q := Question{
		SubjectType: AnyType, Subject: t.Subject, OnBehalfOfType: directory.TypeUser, Identity: true,
		Issuers: by.NameIssuers(), AgentOptional: of.UnknownAgents == tenant.UnknownAgentsAllow, IssuedAt: t.IssuedAt,
		Action: r.Action, ResourceType: foldType(r.ResourceType), Resource: r.Resource,
	}
	if t.Client != "" {
		q.through(t.Client)
	}
	answers, err := s.Decide(ctx, of.ID, q)
	if err != nil {
		return Answer{}, err
	}
	return answers[0], nil
}

// through makes the question one about an agent that acts for the subject.
func (q *Question) through(agent string) {
	q.OnBehalfOf, q.OnBehalfOfType = q.Subject, q.SubjectType
	q.SubjectType, q.Subject, q.Through = directory.TypeAgent, agent, true
}
