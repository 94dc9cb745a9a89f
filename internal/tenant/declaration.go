package tenant

import (
	"github.com/leaverhq/leaver/internal/fault"
)

// InvalidSchemaError is returned for a schema with an invalid definition.
type InvalidSchemaError struct {
	Path   string // e.g. attributes[2].type
	Reason string
}

func (e *InvalidSchemaError) Error() string { return e.Path + ": " + e.Reason }

// Code implements [fault.Coded].
func (e *InvalidSchemaError) Code() fault.Code { return fault.Unprocessable }
