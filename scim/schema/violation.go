package schema

import (
	"fmt"
	"strings"
)

// Error is a request that violates the protocol or a schema: RFC 7644 answers it 400.
type Error struct {
	Kind   ErrorKind
	Detail string
}

func (e *Error) Error() string { return e.Detail }

// ErrorKind is a scimType of RFC 7644 table 9.
type ErrorKind string

// The kinds, and those of RFC 9865 section 2.
const (
	InvalidFilter ErrorKind = "invalidFilter"
	TooMany       ErrorKind = "tooMany"
	NotUnique     ErrorKind = "uniqueness"
	NotMutable    ErrorKind = "mutability"
	InvalidSyntax ErrorKind = "invalidSyntax"
	InvalidPath   ErrorKind = "invalidPath"
	NoTarget      ErrorKind = "noTarget"
	InvalidValue  ErrorKind = "invalidValue"
	InvalidCursor ErrorKind = "invalidCursor"
	ExpiredCursor ErrorKind = "expiredCursor"
	InvalidCount  ErrorKind = "invalidCount"
)

// Errorf returns a violation with a formatted detail.
func Errorf(kind ErrorKind, format string, args ...any) *Error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// Clip shortens a part of a request for an error to 80 bytes.
func Clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
