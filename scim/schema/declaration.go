package schema

import (
	"github.com/leaverhq/leaver/internal/fault"
)

// DeclarationError is returned for a schema with an invalid definition.
type DeclarationError struct {
	Path   string // e.g. attributes[2].type
	Reason string
}

func (e *DeclarationError) Error() string { return e.Path + ": " + e.Reason }

// Code implements [fault.Coded].
func (e *DeclarationError) Code() fault.Code { return fault.Unprocessable }
