// Package directory stores SCIM resources: Users, Groups and Agents of a
// tenant, with the edges between them. It knows documents and indexed columns,
// not schemas: what a document may hold is decided by package scim.
package directory

import (
	"encoding/json"
	"time"

	"github.com/leaverhq/leaver/internal/fault"

	"github.com/google/uuid"
)

// The resource types.
const (
	TypeUser  = "User"
	TypeGroup = "Group"
	TypeAgent = "Agent"
)

// The attributes that are stored as edges instead of in the document.
const (
	EdgeMembers = "members" // Group → User, Agent or Group
	EdgeOwners  = "owners"  // Agent → User or Group
	EdgeParent  = "parent"  // Agent → Agent
)

// The errors of this package.
var (
	ErrNotFound = fault.New(fault.NotFound, "no such resource")
	// ErrNameTaken: another live resource of the type has that unique name.
	ErrNameTaken = fault.New(fault.Conflict, "the name is taken")
	// ErrParents: an agent's parents lead back to it, or are too many.
	ErrParents = fault.New(fault.Invalid, "parent: the parents above are a circle, or more than 32")
)

// UnknownTargetError says that an edge leads to no live resource of the tenant.
type UnknownTargetError struct {
	Attribute string
	Value     string
}

func (e *UnknownTargetError) Error() string {
	return e.Attribute + ": no resource has the id " + e.Value
}

// Resource is one SCIM resource as stored.
type Resource struct {
	ID         uuid.UUID
	Type       string
	UniqueName string // the comparison key of userName or agentUserName; empty for Groups
	Display    string
	ExternalID string // its comparison key
	Active     *bool  // nil where the attribute is absent
	// ValidUntil is when an agent expires; nil if it does not.
	ValidUntil *time.Time
	Version    int64 // 1, 2, …: the number of the last change
	Created    time.Time
	Modified   time.Time
	// Document is a JSON object of the attributes as clients wrote them,
	// without id, schemas, meta, groups and the edges.
	Document json.RawMessage
	// Folded is the document with the comparison keys of its strings, by which it is
	// filtered and sorted. Only on the way in; nil keeps what is stored.
	Folded json.RawMessage
	// Extensions are the URNs of the extensions that the document holds.
	Extensions []string
	// Unique are the values that must be unique beside the unique name, by
	// attribute and folded as their schema says; nil where no schema of the
	// type declares any. Only on the way in.
	Unique map[string]string
	// Changed names the top-level attributes of the document in which it differs
	// from what it replaces. Only on the way in.
	Changed []string
	// Edges are an agent's owners and parent. A group's members are not among
	// them: there may be any number; see [Store.Members].
	Edges []Edge
	// Members changes a group's members. Only on the way in.
	Members Delta
	// Restriction is nil unless decisions about it are deny, whatever Active says.
	Restriction *Restriction
	// Groups the resource is a member of; the type is direct or indirect.
	Groups []Edge
}

// Restriction is the state that decision points consult, with the cascade that
// came of it.
type Restriction struct {
	Since      time.Time `json:"since"`
	Cause      string    `json:"cause"`
	WorkflowID string    `json:"workflowId"` // empty where nothing was there to end
	Survivors  int       `json:"survivors"`
}

// Edge leads from one resource to another.
type Edge struct {
	Attribute string    `json:"attribute"`
	Target    uuid.UUID `json:"value"`
	Type      string    `json:"type"`
	Display   string    `json:"display"`
}

// IsActive tells whether nothing says that the resource is inactive.
func (r *Resource) IsActive() bool { return r.Active == nil || *r.Active }

// Restricted tells whether decisions about the resource are deny.
func (r *Resource) Restricted() bool { return r.Restriction != nil }

// Targets returns the ids that the attribute's edges lead to.
func (r *Resource) Targets(attribute string) map[uuid.UUID]bool {
	targets := make(map[uuid.UUID]bool)
	for _, e := range r.Edges {
		if e.Attribute == attribute {
			targets[e.Target] = true
		}
	}
	return targets
}
