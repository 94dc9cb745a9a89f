package schema

// The names of the resource types.
const (
	User  = "User"
	Group = "Group"
	Agent = "Agent"
)

// The attributes whose values are edges between resources.
const (
	Members = "members" // Group → User, Agent or Group
	Owners  = "owners"  // Agent → User or Group
	Parent  = "parent"  // Agent → Agent
)

// The attributes of the lifecycle extension.
const (
	RestrictedSince = "restrictedSince"
	RestrictedCause = "cause"
	WorkflowID      = "workflowId"
	Survivors       = "survivors"
)
