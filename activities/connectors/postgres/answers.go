package postgres

import (
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leaverhq/leaver/activities/connectors"
)

// classify returns a retryable or permanent error by PostgreSQL's error code (appendix A of
// its manual).
func classify(what string, err error) error {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return connectors.Retryable("%s: the database is unreachable", what)
	}
	switch code := pgErr.Code; {
	case strings.HasPrefix(code, "08"), // connection exceptions
		strings.HasPrefix(code, "57P"), // shutting down, starting up, terminated
		strings.HasPrefix(code, "53"),  // too many connections, out of memory or disk
		code == "40001", code == "40P01", code == "55P03",
		code == "57014", // cancelled by statement_timeout
		code == "25006", // read-only during a failover
		code == "XX000": // tuple concurrently updated by another cascade
		return connectors.Retryable("%s: SQLSTATE %s", what, code)
	case code == "42501":
		return connectors.Permanent(
			"%s: SQLSTATE 42501: the connector's role lacks the privilege: grant it, and re-run the cascade", what,
		)
	case isRefusedLogin(err):
		return connectors.Permanent(
			"%s: SQLSTATE %s: the connector's own login is refused: correct its url in leaver.yaml", what, code,
		)
	default:
		return connectors.Permanent("%s: SQLSTATE %s", what, code)
	}
}

// isRefusedLogin reports whether a login was refused: wrong password, or no login for this role.
func isRefusedLogin(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && (pgErr.Code == "28P01" || pgErr.Code == "28000")
}

// isRefusedAfterPassword reports whether a login failed although the password is right: too many
// connections of the role or to the database, or a library that the role's settings name. The account
// can cause each. The routines are PostgreSQL's, in postinit.c and miscinit.c: before the password is
// checked, too many connections are refused by others.
func isRefusedAfterPassword(err error) bool {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return false
	}
	return pgErr.Code == "58P01" || (pgErr.Code == "53300" &&
		slices.Contains([]string{"InitializeSessionUserId", "CheckMyDatabase", "InitPostgres"}, pgErr.Routine))
}

// isUndefined reports whether the role does not exist.
func isUndefined(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "42704"
}
