package rest

import (
	"fmt"

	yaml "go.yaml.in/yaml/v3"
)

// Error is a mistake in a definition, with its place.
type Error struct {
	File         string
	Line, Column int // from 1
	Reason       string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Reason)
}

// at returns the error of a node.
func at(n *yaml.Node, format string, args ...any) error {
	return &Error{Line: n.Line, Column: n.Column, Reason: fmt.Sprintf(format, args...)}
}
