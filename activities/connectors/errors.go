package connectors

import (
	"errors"
	"fmt"
	"time"
)

// Error is a downstream's refusal or failure, classified as permanent or retryable.
type Error struct {
	permanent bool
	after     time.Duration
	message   string
	cause     error
}

// Permanent returns an error that a retry cannot fix: an operator has to act.
func Permanent(format string, args ...any) *Error {
	return wrap(true, 0, format, args)
}

// Retryable returns an error that a retry may fix.
func Retryable(format string, args ...any) *Error {
	return wrap(false, 0, format, args)
}

// RetryableAfter returns a [Retryable] error with the delay that the downstream requested.
func RetryableAfter(wait time.Duration, format string, args ...any) *Error {
	return wrap(false, wait, format, args)
}

func wrap(permanent bool, after time.Duration, format string, args []any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{permanent: permanent, after: after, message: err.Error(), cause: errors.Unwrap(err)}
}

func (e *Error) Error() string { return e.message }

// Unwrap returns what %w wrapped.
func (e *Error) Unwrap() error { return e.cause }

// IsPermanent reports whether err is a [Permanent] error. An error that no connector has
// classified is not permanent.
func IsPermanent(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.permanent
}

// RetryAfter returns the delay that the downstream requested, or zero.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.after
	}
	return 0
}
