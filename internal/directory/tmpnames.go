package directory

const (
	RestrictedSince = "restrictedSince"
	RestrictedCause = "cause"
	WorkflowID      = "workflowId"
	Survivors       = "survivors"
)
