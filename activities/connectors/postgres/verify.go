package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Probe implements connectors.Verifier. It logs in with the registered password and counts
// the role's sessions. Without a password it reads the catalog, which shows whether login
// is enabled, but cannot check the password.
func (c *Connector) Probe(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return connectors.Unknown, "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var sessions int
	const countSQL = `select pg_catalog.count(*) from pg_catalog.pg_stat_activity where usename = $1`
	if err := conn.QueryRow(ctx, countSQL, t.Reference).Scan(&sessions); err != nil {
		return connectors.Unknown, "", classify("count the role's sessions", err)
	}
	if t.Secret == "" {
		return catalog(ctx, conn, t.Reference, sessions)
	}
	refused, err := c.loginRefused(ctx, t)
	switch {
	case err != nil:
		return connectors.Unknown, "", err
	case !refused:
		return connectors.Alive, "the password logs in", nil
	case sessions > 0 && t.NewReference != t.Reference: // else the sessions may use the new password
		return connectors.Alive, fmt.Sprintf("the password is refused, but %d sessions are open", sessions), nil
	}
	return connectors.Dead, fmt.Sprintf("the password is refused (28P01 or 28000), %d sessions open", sessions), nil
}

func catalog(ctx context.Context, conn *pgx.Conn, role string, sessions int) (connectors.Vitality, string, error) {
	canLogin, err := hasLogin(ctx, conn, role)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return connectors.Dead, "no such role", nil
	case err != nil:
		return connectors.Unknown, "", classify("look up the role", err)
	case canLogin || sessions > 0:
		return connectors.Alive, fmt.Sprintf("login enabled: %t, %d sessions open", canLogin, sessions), nil
	}
	return connectors.Dead, "login is disabled, no session open", nil
}

// hasLogin reports whether a role has the attribute LOGIN. It returns [pgx.ErrNoRows] if there is no such role.
func hasLogin(ctx context.Context, conn *pgx.Conn, role string) (has bool, err error) {
	err = conn.QueryRow(ctx, `select rolcanlogin from pg_catalog.pg_roles where rolname = $1`, role).Scan(&has)
	return has, err
}

// Possesses implements connectors.Possession by a login with the registered password.
func (c *Connector) Possesses(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	if t.Secret == "" {
		return connectors.Unknown, "no password is registered", nil
	}
	// Check before the login, so that passwords of reserved roles cannot be guessed.
	if err := c.Reserved(ctx, t.Reference); err != nil {
		return connectors.Unknown, "", err
	}
	refused, err := c.loginRefused(ctx, t)
	switch {
	case err != nil:
		return connectors.Unknown, "", err
	case refused:
		return connectors.Dead, "the registered password is refused", nil
	}
	return connectors.Alive, "the password logs in", nil
}

// loginRefused reports whether a login with the registered password is refused. It returns
// an error if the login failed for another reason.
func (c *Connector) loginRefused(ctx context.Context, t connectors.Target) (bool, error) {
	cfg := c.config.Copy()
	cfg.User, cfg.Password = t.Reference, t.Secret.Reveal()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err == nil {
		_ = conn.Close(ctx)
		return false, nil
	}
	switch {
	case isRefusedLogin(err):
		return true, nil
	case isRefusedAfterPassword(err):
		return false, nil
	}
	return false, classify("try the password", err)
}
