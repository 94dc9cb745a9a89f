package access

import (
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/mapping"
)

// Party is what counts of a user or an agent for every decision about it.
type Party struct {
	ID         uuid.UUID // zero where there is none
	Type       string
	Name       string // userName or agentUserName, case folded
	Restricted bool
	Expired    bool // an agent's validity is over
	Owned      bool // an agent has an active owner
}

// Refusal returns why every decision about the party is deny; empty where nothing
// restricts it.
func (p Party) Refusal() Reason {
	switch {
	case p.Restricted && p.Type == directory.TypeAgent:
		return AgentSuspended
	case p.Restricted:
		return PrincipalRestricted
	case p.Type != directory.TypeAgent:
		return ""
	case p.Expired:
		return AgentExpired
	case !p.Owned:
		return OwnerGone
	}
	return ""
}

// facts are what a decision weighs.
type facts struct {
	subject    Party
	principal  Party // the user for whom the subject acts, or the subject itself
	delegated  bool  // the principal owns the agent, or has given it something to hold
	derives    bool  // the tenant has rules
	stale      bool  // something was committed that may change what the principal is entitled to
	credential *credential
	grants     []string // the entitlements of what the subject holds at the connector for the action
	held       []string // of the entitlements that count here, those that the principal has
	lost       []string // and those that it had once
}

// credential is the registration that a question names.
type credential struct {
	principal   uuid.UUID
	agent       *uuid.UUID
	entitlement string
	live        bool
	expired     bool
	scopes      []string
}

// stale is no answer: what the principal is entitled to has to be evaluated first.
const stale Reason = "stale"

// decide checks the conditions in order and returns the first reason to deny.
func decide(f facts, q Question) Reason {
	switch reason := f.parties(q); {
	case reason != "":
		return reason
	case q.ResourceType == "credential":
		return f.mayUse(q)
	case !f.delegated:
		return NotDelegated
	case q.ResourceType == "connector":
		return f.mayConnect()
	case f.stale:
		return stale
	case q.ResourceType == "team" && !f.entitled("team:"+q.Resource):
		return f.missing("team:" + q.Resource)
	}
	scope := "scope:" + q.Action
	// A scope that ends in :own is for what the principal owns.
	if f.entitled(scope) || (f.owns(q.Owner) && f.entitled(scope+":own")) {
		return Allow
	}
	return f.missing(scope)
}

// parties returns why nothing is allowed to the subject, or to the principal that it acts
// for; empty where nothing restricts them.
func (f facts) parties(q Question) Reason {
	unknownSubject, unknownPrincipal := UnknownSubject, UnknownPrincipal
	if q.Through { // the subject is context.agent, and the principal the caller's subject
		unknownSubject, unknownPrincipal = UnknownAgent, UnknownSubject
	}
	if f.subject.ID == uuid.Nil {
		return unknownSubject
	}
	if reason := f.subject.Refusal(); reason != "" {
		return reason
	}
	if f.principal.ID == uuid.Nil {
		return unknownPrincipal
	}
	return f.principal.Refusal()
}

// mayUse decides about one credential, by the id of its registration.
func (f facts) mayUse(q Question) Reason {
	c := f.credential
	switch {
	case c == nil || c.principal != f.principal.ID:
		return UnknownCredential
	case f.subject.ID != f.principal.ID && (c.agent == nil || *c.agent != f.subject.ID):
		return UnknownCredential
	case f.derives && mapping.IsEntitlement(c.entitlement) && f.stale:
		return stale
	case f.derives && mapping.IsEntitlement(c.entitlement) && !f.entitled(c.entitlement):
		return EntitlementLost
	case !c.live:
		return CredentialEnded
	case c.expired:
		return CredentialExpired
	case len(c.scopes) > 0 && !slices.Contains(c.scopes, q.Action):
		return ScopeMissing
	}
	return Allow
}

// mayConnect decides about a connector: whether there is some credential for the action.
func (f facts) mayConnect() Reason {
	free := func(entitlement string) bool { return !f.derives || !mapping.IsEntitlement(entitlement) }
	switch {
	case len(f.grants) == 0:
		return NoCredential
	case slices.ContainsFunc(f.grants, free):
		return Allow
	case f.stale:
		return stale
	case slices.ContainsFunc(f.grants, f.entitled):
		return Allow
	}
	return EntitlementLost
}

func (f facts) entitled(name string) bool { return slices.Contains(f.held, name) }

func (f facts) missing(name string) Reason {
	if slices.Contains(f.lost, name) {
		return EntitlementLost
	}
	return NotEntitled
}

// owns reports whether the principal is the resource's owner. An id is compared with an
// id, and a userName with a userName: no name stands for another's id, nor an agent's for
// a user.
func (f facts) owns(owner string) bool {
	if id, ok := idOf(owner); ok {
		return id == f.principal.ID
	}
	return owner != "" && f.principal.Type == directory.TypeUser && strings.ToLower(owner) == f.principal.Name
}

// idOf reads a SCIM id in its canonical form.
func idOf(text string) (uuid.UUID, bool) {
	id, err := uuid.Parse(text)
	return id, err == nil && len(text) == len(id.String())
}
