// Package mysql ends service accounts of a MariaDB or MySQL server: it locks them, replaces their passwords and ends
// their sessions, or rotates the password of shared ones.
//
// An account does not control what the connector runs: the connector uses no database, so that no function or table
// of the account's is found by an unqualified name, and its session has the server's settings only.
package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Config are the settings of a connector of type mysql.
type Config struct {
	// DSN is a reference to USER:PASSWORD@tcp(HOST:PORT)/?tls=true of an administrator with CREATE USER, PROCESS,
	// CONNECTION ADMIN (MariaDB) or CONNECTION_ADMIN (MySQL), and SELECT on mysql.user.
	DSN connectors.SecretRef `yaml:"dsn"`
}

// Connector implements Revoker, Rotator, Blocker, Verifier, Possession, Guard, Issuer and Checker.
type Connector struct {
	config *mysql.Config
	db     *sql.DB
}

const connectTimeout = 10 * time.Second

// New validates the settings and resolves the DSN.
func New(c Config) (*Connector, error) {
	dsn, err := c.DSN.Resolve()
	if err != nil {
		return nil, fmt.Errorf("dsn: %w", err)
	}
	config, err := mysql.ParseDSN(dsn.Reveal())
	if err != nil || config.User == "" {
		return nil, errors.New("dsn must be USER:PASSWORD@tcp(HOST:PORT)/") // the error quotes it
	}
	if config.DBName != "" {
		return nil, errors.New("dsn must not name a database: the connector uses none")
	}
	config.Timeout, config.ReadTimeout, config.WriteTimeout = connectTimeout, connectTimeout, connectTimeout
	config.Logger = log.New(io.Discard, "", 0)
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, errors.New("dsn is not valid")
	}
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(4)
	db.SetConnMaxIdleTime(time.Minute)
	return &Connector{config: config, db: db}, nil
}

// Downstream implements connectors.Located.
func (c *Connector) Downstream() string { return strings.ToLower(c.config.Addr) }

// Close implements connectors.Connector.
func (c *Connector) Close() { _ = c.db.Close() }

// account is a user at a host pattern, as the server names it.
type account struct{ user, host string }

// parse reads a reference, user@host; without a host it is user@%.
func parse(reference string) (account, error) {
	a := account{reference, "%"}
	if i := strings.LastIndexByte(reference, '@'); i >= 0 {
		a = account{reference[:i], strings.ToLower(reference[i+1:])}
	}
	switch {
	case a.user == "" || len(a.user) > 80 || len(a.host) > 255 || a.host == "":
		return a, connectors.Permanent("the reference must be user@host, or user for user@%%, got %q", reference)
	case strings.ContainsFunc(a.user+a.host, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' }):
		return a, connectors.Permanent("the reference must not contain control characters and backslashes")
	}
	return a, nil
}

func (a account) String() string { return a.user + "@" + a.host }

// quoted returns the account as SQL names it.
func (a account) quoted() string { return quote(a.user) + "@" + quote(a.host) }

// quote returns a text as a literal. Texts have no backslashes, so that it is the same in every SQL mode.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// Accepts implements connectors.Connector.
func (c *Connector) Accepts(r connectors.Registration) (string, error) {
	a, err := parse(r.Reference)
	switch {
	case err != nil:
		return "", err
	case r.Kind != connectors.ServiceAccount:
		return "", fmt.Errorf("kind must be %s, got %s", connectors.ServiceAccount, r.Kind)
	case r.Shared && !r.HasSecret:
		return "", errors.New("a shared account is rotated: register its password as the secret")
	}
	return a.String(), c.reserved(a)
}

// Reserved implements connectors.Guard.
func (c *Connector) Reserved(_ context.Context, reference string) error {
	a, err := parse(reference)
	if err != nil {
		return err
	}
	return c.reserved(a)
}

// reserved returns a permanent error for accounts that the server runs on, and for the connector's own.
func (c *Connector) reserved(a account) error {
	switch {
	case strings.EqualFold(a.user, c.config.User):
		return connectors.Permanent("the account %s is the connector's own", a)
	case strings.EqualFold(a.user, "root"), strings.EqualFold(a.user, "mysql"),
		strings.HasPrefix(a.user, "mariadb."), strings.HasPrefix(a.user, "mysql."):
		return connectors.Permanent("the account %s is one of the server's own", a)
	}
	return nil
}

// Check implements connectors.Checker: the connector's account must be able to read accounts and sessions.
func (c *Connector) Check(ctx context.Context) error {
	if _, err := c.exists(ctx, account{c.config.User, "%"}); err != nil {
		return err
	}
	_, err := c.sessions(ctx, account{c.config.User, "%"})
	return err
}

// exists reports whether the account exists.
func (c *Connector) exists(ctx context.Context, a account) (bool, error) {
	var n int
	err := c.db.QueryRowContext(ctx,
		"select count(*) from mysql.user where binary User = ? and lower(Host) = ?", a.user, a.host).Scan(&n)
	if err != nil {
		return false, classify("look up the account", err)
	}
	return n > 0, nil
}

// sessions returns the ids of the sessions that the user has open. Error: permanent without the privilege PROCESS, with
// which the server lists the sessions of others.
func (c *Connector) sessions(ctx context.Context, a account) ([]int64, error) {
	var sees bool
	err := c.db.QueryRowContext(ctx, "select count(*) > 0 from information_schema.USER_PRIVILEGES "+
		"where PRIVILEGE_TYPE = 'PROCESS'").Scan(&sees)
	if err == nil && !sees {
		return nil, connectors.Permanent("the connector's account lacks the privilege PROCESS, and cannot see sessions")
	}
	if err != nil {
		return nil, classify("read the connector's privileges", err)
	}
	return c.listed(ctx, a)
}

// listed returns the ids of the user's sessions that the server lists: with the client's host, and not with the
// account's host pattern.
func (c *Connector) listed(ctx context.Context, a account) (ids []int64, err error) {
	rows, err := c.db.QueryContext(ctx, "select ID from information_schema.PROCESSLIST where binary USER = ?", a.user)
	if err != nil {
		return nil, classify("list the sessions", err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, classify("list the sessions", err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, classify("list the sessions", err)
	}
	return ids, nil
}

// The numbers of the server's errors.
const (
	errAccessDenied  = 1045
	errHostDenied    = 1130
	errNoSuchThread  = 1094
	errCannotUser    = 1396 // the account does not exist
	errDenied        = 1227 // a privilege is missing
	errTableDenied   = 1142
	errKillDenied    = 1095
	errLockWait      = 1205
	errDeadlock      = 1213
	errTooMany       = 1040
	errShutdown      = 1053
	errReadOnly      = 1290
	errLockedMariaDB = 4151
	errLockedMySQL   = 3118
	errExpired       = 1862
	errMustChange    = 1820
)

// numberOf returns the number of the server's error, or 0.
func numberOf(err error) uint16 {
	var refused *mysql.MySQLError
	if errors.As(err, &refused) {
		return refused.Number
	}
	return 0
}

// classify returns the error of a statement: permanent for a refusal, retryable otherwise. It quotes nothing of it.
func classify(what string, err error) error {
	switch n := numberOf(err); n {
	case 0:
		return connectors.Retryable("%s: %s", what, connectors.TransportReason(err))
	case errAccessDenied, errHostDenied, errLockedMariaDB, errLockedMySQL:
		return connectors.Permanent("%s: error %d: the connector's own login is refused", what, n)
	case errDenied, errTableDenied, errKillDenied:
		return connectors.Permanent("%s: error %d: the connector's account lacks a privilege: grant it SELECT on "+
			"mysql.user, CREATE USER, PROCESS and CONNECTION ADMIN", what, n)
	case errLockWait, errDeadlock, errTooMany, errShutdown, errReadOnly:
		return connectors.Retryable("%s: error %d", what, n)
	}
	return connectors.Permanent("%s: error %d", what, numberOf(err))
}
