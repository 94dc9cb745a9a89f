package schema

// UnknownTargetError is returned when the target of an edge is not a live resource of the
// tenant.
type UnknownTargetError struct {
	Attribute string
	Value     string
}

func (e *UnknownTargetError) Error() string {
	return e.Attribute + ": no resource has the id " + e.Value
}
