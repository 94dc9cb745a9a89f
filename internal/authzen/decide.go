package authzen

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/mapping"
	"github.com/leaverhq/leaver/internal/textkey"
)

// Party is the state of a user or agent that can deny every request.
type Party struct {
	ID         uuid.UUID // zero if there is none
	Type       string
	Name       string // userName or agentUserName, case folded
	Restricted bool
	Expired    bool // an agent's validity is over
	Owned      bool // an agent has an active owner
	ValidUntil *time.Time
}

// Refusal returns the reason to deny every request of the party, or "" if there is none.
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

// facts is the input of decide.
type facts struct {
	subject   Party
	principal Party // the user for whom the subject acts, or the subject itself
	delegated bool  // the principal owns the agent, or the agent has a credential of the principal
	// subjects and principals are how many the question's names match, at most two; acting is
	// whether the subjects act for the principal.
	subjects, principals int
	acting               bool
	// existed is whether an unknown agent's name is, or was, that of an agent that is not live.
	existed    bool
	credential *credential
	// grants are the entitlements of the subject's credentials at the connector for the action;
	// nil if they are not read.
	grants   []string
	entitled *entitled
}

// entitled is the principal's state for the entitlements that a question names.
type entitled struct {
	derives bool // the tenant has rules
	ruled   bool // rules name the scope of the action, or a finer one
	stale   bool // something was committed that may change it, and is not evaluated yet
	held    []string
	lost    []string // held in the past
}

// credential is the registration that a question names.
type credential struct {
	principal   uuid.UUID
	agent       *uuid.UUID
	entitlement string
	live        bool
	expired     bool
	scopes      []string
	expires     *time.Time
}

// unread and stale are internal: entitlements must be read or evaluated before decide can
// answer.
const (
	unread Reason = "unread"
	stale  Reason = "stale"
)

// decide checks the conditions in order and returns the first reason to deny.
func decide(f facts, q Question) Reason {
	switch reason := f.parties(q); {
	case reason != "":
		return reason
	case strings.HasSuffix(q.Action, ownSuffix): // the suffix is leaver's, and no action's
		return NotEntitled
	case q.ResourceType == "credential":
		return f.mayUse(q)
	case !f.delegated:
		return NotDelegated
	case q.ResourceType == "connector":
		return f.mayConnect()
	case f.entitled.missing() != "":
		return f.entitled.missing()
	case q.ResourceType == "team" && !f.entitled.to("team:"+q.Resource):
		return f.entitled.without("team:" + q.Resource)
	case isMCP(q.ResourceType, q.Action):
		return f.mayRequest(q)
	}
	scope := "scope:" + q.Action
	// A scope that ends in :own is for what the principal owns.
	if f.entitled.to(scope) || (f.owns(q.Owner) && f.entitled.to(scope+":own")) {
		return Allow
	}
	return f.entitled.without(scope)
}

// parties returns the reason to deny the subject or its principal; empty if there is none.
func (f facts) parties(q Question) Reason {
	unknownSubject, unknownPrincipal := UnknownSubject, UnknownPrincipal
	if q.Through { // the subject is context.agent, and the principal the caller's subject
		unknownSubject, unknownPrincipal = UnknownAgent, UnknownSubject
	}
	switch {
	case q.acts() && f.principals == 0 && (f.subjects > 1 || q.Through && q.AgentOptional):
		return unknownPrincipal
	case f.principals > 1, f.subjects > 1 && (f.acting || f.principals == 0):
		return AmbiguousSubject
	case f.subjects > 1 && f.principal.ID != uuid.Nil:
		return NotDelegated // several agents have the name, and none acts for the principal
	case f.subject.ID == uuid.Nil:
		return unknownSubject
	}
	if reason := f.subject.Refusal(); reason != "" {
		return reason
	}
	switch {
	case f.principal.ID == uuid.Nil:
		return unknownPrincipal
	case f.principal.Type == directory.TypeAgent && f.principal.ID != f.subject.ID:
		return NotDelegated // an agent acts for people, or for itself
	case q.Identity && !q.Through && !q.AgentOptional && f.subject.Type == directory.TypeUser:
		return AgentMissing
	}
	return f.principal.Refusal()
}

// isMCP reports whether a question is about a method of the Model Context Protocol (COAZ-MCP). Only
// mcp_server is a type of that protocol alone: others also need the method that goes with them.
func isMCP(resourceType, action string) bool {
	switch resourceType {
	case "mcp_server":
		return true
	case "tool":
		return strings.HasPrefix(action, "tools/")
	case "resource":
		return strings.HasPrefix(action, "resources/") || action == "completion/complete"
	case "prompt":
		return strings.HasPrefix(action, "prompts/") || action == "completion/complete"
	case "task":
		return strings.HasPrefix(action, "tasks/")
	}
	return false
}

// mayRequest decides about a method of the Model Context Protocol, such as tools/call. The access
// status of the parties is enough unless the tenant's rules name the method's scope, or that of a
// resource. The resource "own" has no scope of its own: scope:…:own is about the agent's owner.
func (f facts) mayRequest(q Question) Reason {
	scope := "scope:" + q.Action
	if !f.entitled.ruled || f.entitled.to(scope) || q.Resource != "own" && f.entitled.to(scope+":"+q.Resource) {
		return Allow
	}
	return f.entitled.without(scope)
}

// until returns when a permit ends by itself; nil if it does not.
func (f facts) until(q Question) *time.Time {
	if f.credential == nil || q.ResourceType != "credential" {
		return f.subject.ValidUntil
	}
	return earlier(f.subject.ValidUntil, f.credential.expires)
}

// earlier returns the earlier of two times, of which nil is none.
func earlier(a, b *time.Time) *time.Time {
	if a == nil || b != nil && b.Before(*a) {
		return b
	}
	return a
}

// mayUse decides about one credential, by the id of its registration.
func (f facts) mayUse(q Question) Reason {
	c := f.credential
	switch {
	case c == nil || c.principal != f.principal.ID:
		return UnknownCredential
	case f.subject.ID != f.principal.ID && (c.agent == nil || *c.agent != f.subject.ID):
		return UnknownCredential
	}
	if mapping.IsEntitlement(c.entitlement) {
		if reason := f.entitled.under(c.entitlement); reason != Allow {
			return reason
		}
	}
	switch {
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
	switch {
	case f.grants == nil:
		return unread
	case len(f.grants) == 0:
		return NoCredential
	case slices.ContainsFunc(f.grants, func(name string) bool { return !mapping.IsEntitlement(name) }):
		return Allow
	}
	return f.entitled.under(f.grants...)
}

// missing returns unread or stale if the entitlements are not known; empty otherwise.
func (e *entitled) missing() Reason {
	switch {
	case e == nil:
		return unread
	case e.stale:
		return stale
	}
	return ""
}

func (e *entitled) to(name string) bool { return slices.Contains(e.held, name) }

// without returns EntitlementLost if the principal once held name, and NotEntitled otherwise.
func (e *entitled) without(name string) Reason {
	if slices.Contains(e.lost, name) {
		return EntitlementLost
	}
	return NotEntitled
}

// under returns Allow if one of the entitlements is held, or if the tenant has no rules (the
// names then belong to the platform), and EntitlementLost otherwise.
func (e *entitled) under(names ...string) Reason {
	switch {
	case e != nil && !e.derives:
		return Allow
	case e.missing() != "":
		return e.missing()
	case slices.ContainsFunc(names, e.to):
		return Allow
	}
	return EntitlementLost
}

// owns reports whether the principal is the resource's owner. An id matches only ids, and a
// userName only the names of users.
func (f facts) owns(owner string) bool {
	if id, ok := directory.ParseID(owner); ok {
		return id == f.principal.ID
	}
	return owner != "" && f.principal.Type == directory.TypeUser && textkey.Fold(owner) == f.principal.Name
}
