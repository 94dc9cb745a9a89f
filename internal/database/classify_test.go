package database

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestClassify_WhatALaterRequestMayCure: those are answered 503 with Retry-After, and no 500.
func TestClassify_WhatALaterRequestMayCure(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		want bool
	}{
		"the connection broke off in an answer": {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), true},
		"the connection was closed":             {io.EOF, true},
		"the connection was reset":              {&pgconn.ConnectError{}, true},
		"a system call failed":                  {syscall.ECONNRESET, true},
		"the role's password is refused":        {&pgconn.PgError{Code: "28P01"}, true},
		"the role may not log in":               {&pgconn.PgError{Code: "28000"}, true},
		"somebody has held a row for long":      {&pgconn.PgError{Code: "55P03"}, true},
		"a deadlock":                            {&pgconn.PgError{Code: "40P01"}, true},
		"a name that is taken":                  {&pgconn.PgError{Code: "23505"}, false},
		"a mistake in a statement":              {&pgconn.PgError{Code: "42601"}, false},
		"an error of our own":                   {errors.New("x"), false},
	} {
		if got := errors.Is(classify(row.err), ErrUnavailable); got != row.want {
			t.Errorf("%s: unavailable %t, want %t", name, got, row.want)
		}
	}
}
