package postgres

import (
	"context"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Check implements connectors.Checker: a login as the connector's role, which must have CREATEROLE and be a member
// of pg_signal_backend.
func (c *Connector) Check(ctx context.Context) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var creates, signals bool
	if err := conn.QueryRow(ctx, `
		select r.rolsuper or r.rolcreaterole,
		       pg_catalog.pg_has_role(r.oid, 'pg_signal_backend'::pg_catalog.regrole::pg_catalog.oid, 'USAGE')
		  from pg_catalog.pg_roles r where r.rolname = current_user`).Scan(&creates, &signals); err != nil {
		return classify("check the connector's role", err)
	}
	switch {
	case !creates:
		return connectors.Permanent("the connector's role cannot alter roles: run `alter role %s createrole`", c.config.User)
	case !signals:
		return connectors.Permanent("the connector's role cannot end sessions: run `grant pg_signal_backend to %s`",
			c.config.User)
	}
	return nil
}
