package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/postgres/scram"
)

// terminateTimeout bounds the wait for the end of one session, in milliseconds.
const terminateTimeout = 5000

// Revoke implements connectors.Revoker. It disables the login, sets a random password, so
// that a later LOGIN does not restore access, and ends open sessions.
func (c *Connector) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.alter(ctx, t, "login disabled", func(role string) (string, error) {
		verifier, err := scram.NewVerifier(rand.Text())
		return "alter role " + role + " nologin password '" + verifier + "'", err
	})
}

// Block implements connectors.Blocker. It disables the login and ends open sessions, but
// does not change the password, so that LOGIN restores access.
func (c *Connector) Block(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	permitted, err := c.mayLogIn(ctx, t.Reference)
	if err != nil {
		return connectors.Answer{}, err
	}
	answer, err := c.alter(ctx, t, "login suspended", func(role string) (string, error) {
		return "alter role " + role + " nologin", nil
	})
	if err == nil && answer.Outcome == connectors.Done && !permitted {
		answer.Outcome = connectors.Unchanged
	}
	return answer, err
}

// mayLogIn reports whether a role exists and has the attribute LOGIN.
func (c *Connector) mayLogIn(ctx context.Context, role string) (bool, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	has, err := hasLogin(ctx, conn, role)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return false, classify("look up the role", err)
	}
	return has, nil
}

// Unblock implements connectors.Unblocker. A revoked role stays without access: its password is random, and not stored.
func (c *Connector) Unblock(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.alter(ctx, t, "login permitted", func(role string) (string, error) {
		return "alter role " + role + " login", nil
	})
}

func (c *Connector) alter(
	ctx context.Context, t connectors.Target, what string, statement func(quoted string) (string, error),
) (connectors.Answer, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return connectors.Answer{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := c.refuseForbidden(ctx, conn, t, t.Reference); errors.Is(err, errGone) {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such role"}, nil
	} else if err != nil {
		return connectors.Answer{}, err
	}
	sql, err := statement(pgx.Identifier{t.Reference}.Sanitize())
	if err != nil {
		return connectors.Answer{}, connectors.Permanent("%w", err)
	}
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	if _, err := conn.Exec(ctx, sql); isUndefined(err) {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such role"}, nil
	} else if err != nil {
		return connectors.Answer{}, classify("alter the role", err)
	}
	return endSessions(ctx, conn, t.Reference, what)
}

func endSessions(ctx context.Context, conn *pgx.Conn, role, what string) (connectors.Answer, error) {
	ended, left, err := terminate(ctx, conn, role)
	if err != nil {
		return connectors.Answer{}, classify("end the role's sessions", err)
	}
	if left > 0 {
		return connectors.Answer{}, connectors.Retryable("%s, but %d of the role's sessions are still open", what, left)
	}
	return connectors.Answer{
		Outcome: connectors.Done, Detail: fmt.Sprintf("%s, %d open sessions ended", what, ended),
	}, nil
}

// terminate ends the role's sessions and waits for each to be gone.
func terminate(ctx context.Context, conn *pgx.Conn, role string) (ended, left int, err error) {
	err = conn.QueryRow(ctx, `
		with ending as materialized (
		  select pg_catalog.pg_terminate_backend(pid, $2) as gone from pg_catalog.pg_stat_activity
		   where usename = $1 and pid <> pg_catalog.pg_backend_pid())
		select pg_catalog.count(*) filter (where gone), pg_catalog.count(*) filter (where not gone)
		  from ending`, role, terminateTimeout).Scan(&ended, &left)
	return ended, left, err
}

var errGone = errors.New("no such role")

// forbiddenReason is an SQL expression for the reason why a role is never altered, or null:
// roles that run the server or own the database, roles that administer roles, and roles of
// a leaver installation.
const forbiddenReason = `case
	         when r.rolsuper or r.rolreplication or r.rolname like 'pg\_%'
	           then 'it is a superuser, a replication or a system role'
	         when r.rolname in (current_user, session_user) then 'it is the connector''s own'
	         when r.rolcreaterole or r.rolbypassrls then 'it has CREATEROLE or BYPASSRLS'
	         when exists (select from pg_catalog.pg_database d
	                       where d.datname = pg_catalog.current_database() and d.datdba = r.oid)
	           then 'it owns the database'
	         when exists (select from pg_catalog.pg_auth_members m join pg_catalog.pg_roles g on g.oid = m.roleid
	                       where m.member = r.oid and g.rolname like 'leaver\_app%')
	           then 'it is the role of a leaver installation'
	       end`

// forbiddenSQL returns the [forbiddenReason] of a role, and its comment, which may be a label.
const forbiddenSQL = `
	select ` + forbiddenReason + `,
	       pg_catalog.shobj_description(r.oid, 'pg_authid')
	  from pg_catalog.pg_roles r where r.rolname = $1`

// refuseForbidden returns a permanent error for a role that must not be altered, and for a
// role whose label names a principal other than the target's. The label is not checked if
// the target has no principal. It returns [errGone] if the role does not exist.
func (c *Connector) refuseForbidden(ctx context.Context, conn *pgx.Conn, t connectors.Target, role string) error {
	var reason, comment *string
	err := conn.QueryRow(ctx, forbiddenSQL, role).Scan(&reason, &comment)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errGone
	case err != nil:
		return classify("look up the role", err)
	case slices.Contains(c.protected, role):
		return connectors.Permanent("refused to alter the role: it belongs to this leaver installation")
	case reason != nil:
		return connectors.Permanent("refused to alter the role: %s", *reason)
	case t.Principal != uuid.Nil && comment != nil && strings.Contains(*comment, Label) &&
		!strings.Contains(*comment, Label+t.Principal.String()) && !strings.Contains(*comment, Label+t.Agent.String()):
		return connectors.Permanent("the role's label names another principal: correct the label or the registration")
	}
	return nil
}
