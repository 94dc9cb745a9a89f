package database

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestClassify_TransientErrorsAreUnavailable lists the errors for which clients get status 503
// with Retry-After instead of 500.
func TestClassify_TransientErrorsAreUnavailable(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		want bool
	}{
		"the connection broke during a response": {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), true},
		"the connection was closed":              {io.EOF, true},
		"the connection was reset":               {&pgconn.ConnectError{}, true},
		"a system call failed":                   {syscall.ECONNRESET, true},
		"the role's password is refused":         {&pgconn.PgError{Code: "28P01"}, true},
		"the role may not log in":                {&pgconn.PgError{Code: "28000"}, true},
		"a lock timeout":                         {&pgconn.PgError{Code: "55P03"}, true},
		"a deadlock":                             {&pgconn.PgError{Code: "40P01"}, true},
		"a unique violation":                     {&pgconn.PgError{Code: "23505"}, false},
		"a syntax error":                         {&pgconn.PgError{Code: "42601"}, false},
		"an error of another package":            {errors.New("x"), false},
	} {
		if got := errors.Is(classify(row.err), ErrUnavailable); got != row.want {
			t.Errorf("%s: unavailable %t, want %t", name, got, row.want)
		}
	}
}
