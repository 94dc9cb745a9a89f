package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/scram"
)

// terminateTimeout is how long one session may take to end, in milliseconds.
const terminateTimeout = 5000

// Revoke implements connectors.Revoker: no login, a password nobody knows, so
// that a later LOGIN brings nothing back, and no open session.
func (c *Connector) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.alter(ctx, t.Reference, "login disabled", func(role string) (string, error) {
		verifier, err := scram.NewVerifier(rand.Text())
		return "alter role " + role + " nologin password '" + verifier + "'", err
	})
}

// Block implements connectors.Blocker: no login and no open session, with the
// password as it is, so that LOGIN brings the role back.
func (c *Connector) Block(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	return c.alter(ctx, t.Reference, "login suspended", func(role string) (string, error) {
		return "alter role " + role + " nologin", nil
	})
}

func (c *Connector) alter(ctx context.Context, role, what string, statement func(quoted string) (string, error)) (connectors.Answer, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return connectors.Answer{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := refuseForbidden(ctx, conn, role); errors.Is(err, errGone) {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such role"}, nil
	} else if err != nil {
		return connectors.Answer{}, err
	}
	sql, err := statement(pgx.Identifier{role}.Sanitize())
	if err != nil {
		return connectors.Answer{}, connectors.Permanent("%w", err)
	}
	if _, err := conn.Exec(ctx, sql); isUndefined(err) {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such role"}, nil
	} else if err != nil {
		return connectors.Answer{}, classify("alter the role", err)
	}
	return endSessions(ctx, conn, role, what)
}

func endSessions(ctx context.Context, conn *pgx.Conn, role, what string) (connectors.Answer, error) {
	ended, left, err := terminate(ctx, conn, role)
	if err != nil {
		return connectors.Answer{}, classify("end the role's sessions", err)
	}
	if left > 0 {
		return connectors.Answer{}, connectors.Retryable("%s, but %d of the role's sessions are still open", what, left)
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: fmt.Sprintf("%s, %d open sessions ended", what, ended)}, nil
}

// terminate ends the role's sessions and waits for each to be gone.
func terminate(ctx context.Context, conn *pgx.Conn, role string) (ended, left int, err error) {
	err = conn.QueryRow(ctx, `
		with ending as materialized (
		  select pg_terminate_backend(pid, $2) as gone from pg_stat_activity where usename = $1 and pid <> pg_backend_pid())
		select count(*) filter (where gone), count(*) filter (where not gone) from ending`, role, terminateTimeout).Scan(&ended, &left)
	return ended, left, err
}

var errGone = errors.New("no such role")

// refuseForbidden keeps a platform from registering, and a cascade from
// ending, the roles that run the database, or the connector's own.
func refuseForbidden(ctx context.Context, conn *pgx.Conn, role string) error {
	var forbidden bool
	err := conn.QueryRow(ctx, `
		select rolsuper or rolreplication or rolname = current_user or rolname like 'pg\_%' from pg_roles where rolname = $1`, role).Scan(&forbidden)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errGone
	case err != nil:
		return classify("look up the role", err)
	case forbidden:
		return connectors.Permanent("the role is a superuser, a replication or a system role, or the connector's own: it is never altered")
	}
	return nil
}
