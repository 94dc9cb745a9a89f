package directory

import (
	"errors"
)

// ErrUnservable is returned for a condition that is well formed but not supported.
var ErrUnservable = errors.New("unsupported filter")

// ErrUnsortable is returned for an unsupported sort attribute.
var ErrUnsortable = errors.New("unsupported sortBy")
