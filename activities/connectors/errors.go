package connectors

import (
	"errors"
	"fmt"
	"time"
)

// Error is a downstream's refusal or failure, classified where it was read.
type Error struct {
	permanent bool
	after     time.Duration
	message   string
	cause     error
}

// Permanent is an error that no retry will cure: somebody has to act.
func Permanent(format string, args ...any) *Error {
	return wrap(true, 0, format, args)
}

// Retryable is an error that may pass by itself.
func Retryable(format string, args ...any) *Error {
	return wrap(false, 0, format, args)
}

// RetryableAfter is [Retryable], not before the wait that the downstream asked for.
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

// IsPermanent tells whether err says that no retry will cure it. An error that
// no connector classified is not permanent.
func IsPermanent(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.permanent
}

// RetryAfter returns the wait that the downstream asked for, or zero.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.after
	}
	return 0
}
