// Package directory stores SCIM resources: the Users, Groups and Agents of a tenant, with the
// edges between them. It handles documents and indexed columns, not schemas: package scim
// validates documents.
package directory

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/scim/patch"
	"github.com/leaverhq/leaver/scim/schema"
)

// The resource types.
const (
	TypeUser  = schema.User
	TypeGroup = schema.Group
	TypeAgent = schema.Agent
)

// The attributes that are stored as edges instead of in the document.
const (
	EdgeMembers = schema.Members // Group → User, Agent or Group
	EdgeOwners  = schema.Owners  // Agent → User or Group
	EdgeParent  = schema.Parent  // Agent → Agent
)

// The errors of this package.
var (
	ErrNotFound = fault.New(fault.NotFound, "no such resource")
	// ErrNameTaken is returned when another live resource of the type has the unique name.
	ErrNameTaken = fault.New(fault.Conflict, "the name is taken")
	// ErrParents is returned when an agent's parents form a cycle, or are too many.
	ErrParents = fault.New(fault.Invalid, "parent: the chain of parents must have no cycle and at most 32 agents")
)

// Resource is one SCIM resource as stored.
type Resource struct {
	ID         uuid.UUID
	Type       string
	UniqueName string // the comparison key of userName or agentUserName; empty for Groups
	Display    string
	ExternalID string // its comparison key
	Active     *bool  // nil if the attribute is absent
	// ValidUntil is when an agent expires; nil if it does not.
	ValidUntil *time.Time
	Version    int64 // 1, 2, …: the number of the last change
	Created    time.Time
	Modified   time.Time
	// Document is a JSON object of the attributes as clients wrote them,
	// without id, schemas, meta, groups and the edges.
	Document json.RawMessage
	// Folded is the document with the comparison keys of its strings, by which it is
	// filtered and sorted. For writes only; nil keeps the stored value.
	Folded json.RawMessage
	// Extensions are the URNs of the extensions that the document contains.
	Extensions []string
	// Unique are the values that must be unique in addition to the unique name, by
	// attribute, folded as their schema says; nil if no schema of the type declares any.
	// For writes only.
	Unique map[string]string
	// Names are the names of a User or an Agent. The unique name and the externalId are added if
	// they are absent. For writes only.
	Names []Name
	// Changed names the top-level attributes in which the document differs from the one that
	// it replaces. For writes only.
	Changed []string
	// Edges are an agent's owners and parent. A group's members are not included, since
	// their number is not bounded; see [Store.Members].
	Edges []Edge
	// Members changes a group's members. For writes only.
	Members patch.Delta
	// Restriction is not nil if decisions deny the resource, regardless of Active.
	Restriction *Restriction
	// Groups are the groups that contain the resource; the type is direct or indirect.
	Groups []Edge
}

// Restriction is the state that decision points consult, with the cascade that it started.
type Restriction struct {
	Since      time.Time `json:"since"`
	Cause      string    `json:"cause"`
	WorkflowID string    `json:"workflowId"` // empty if there was nothing to end
	Survivors  int       `json:"survivors"`
}

// Edge leads from one resource to another.
type Edge struct {
	Attribute string    `json:"attribute"`
	Target    uuid.UUID `json:"value"`
	Type      string    `json:"type"`
	Display   string    `json:"display"`
}

// IsActive reports whether the attribute active is true or absent.
func (r *Resource) IsActive() bool { return r.Active == nil || *r.Active }

// Restricted reports whether decisions deny the resource.
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
