package scim

import (
	"fmt"
	"strings"
)

// Violation is a request that violates the protocol or a schema: RFC 7644 answers it 400.
type Violation struct {
	Kind   ErrorKind
	Detail string
}

func (e *Violation) Error() string { return e.Detail }

// ErrorKind is a scimType of RFC 7644 table 9.
type ErrorKind string

// The kinds, and those of RFC 9865 section 2.
const (
	invalidFilter ErrorKind = "invalidFilter"
	tooMany       ErrorKind = "tooMany"
	uniqueness    ErrorKind = "uniqueness"
	mutability    ErrorKind = "mutability"
	invalidSyntax ErrorKind = "invalidSyntax"
	invalidPath   ErrorKind = "invalidPath"
	noTarget      ErrorKind = "noTarget"
	invalidValue  ErrorKind = "invalidValue"
	invalidCursor ErrorKind = "invalidCursor"
	expiredCursor ErrorKind = "expiredCursor"
	invalidCount  ErrorKind = "invalidCount"
)

// violationf returns a violation with a formatted detail.
func violationf(kind ErrorKind, format string, args ...any) *Violation {
	return &Violation{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// clip shortens a part of a request for an error to 80 bytes.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
