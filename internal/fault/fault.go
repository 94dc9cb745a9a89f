// Package fault classifies the domain's errors by a code. Each edge, such as SCIM or the HTTP
// API, translates the codes once.
package fault

import (
	"errors"
	"time"
)

// Code classifies an error by what its caller can do.
type Code int

// The codes. An error without a code is internal: its text is for the log only.
const (
	Internal      Code = iota
	Invalid            // the request is malformed
	Unprocessable      // the request is well-formed, and a value in it cannot be accepted
	NotFound           // the named thing does not exist
	Forbidden          // the caller may not do this
	Conflict           // the state does not allow it
	Unavailable        // a dependency does not answer: the caller may retry
	Throttled          // the caller asks too often: it may retry later
)

// Coded is an error with a code. Its text may be shown to clients.
type Coded interface {
	error
	Code() Code
}

// Error is a [Coded] error with a fixed text.
type Error struct {
	code       Code
	text       string
	retryAfter time.Duration
}

// New returns an error with a code, to be compared with errors.Is.
func New(code Code, text string) error { return &Error{code: code, text: text} }

// NewRetryable returns an error after which the caller may retry, not before after has passed.
func NewRetryable(code Code, after time.Duration, text string) error {
	return &Error{code: code, text: text, retryAfter: after}
}

func (e *Error) Error() string { return e.text }

// Code implements [Coded].
func (e *Error) Code() Code { return e.code }

// RetryAfter returns how long the caller should wait before a retry; 0 says nothing.
func (e *Error) RetryAfter() time.Duration { return e.retryAfter }

// Of returns the outermost coded error that err wraps, and whether there is one.
func Of(err error) (Coded, bool) {
	var coded Coded
	ok := errors.As(err, &coded)
	return coded, ok
}
