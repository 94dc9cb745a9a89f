package postgres

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/postgres/scram"
)

// Label precedes the SCIM id of the principal in a role's comment:
//
//	comment on role reporting is 'leaver:principal=01a20ac5-…'
const Label = "leaver:principal="

// Discover implements connectors.Discoverer. It returns the roles that can log in and whose
// comment contains the label of one of the principals.
func (c *Connector) Discover(ctx context.Context, principals []connectors.Principal) ([]connectors.Found, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, `
		select r.rolname, p.id
		  from pg_catalog.unnest($1::pg_catalog.uuid[]) p (id)
		  join pg_catalog.pg_shdescription d on d.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass
		   and pg_catalog.strpos(d.description, $2 || p.id::pg_catalog.text) > 0
		  join pg_catalog.pg_roles r on r.oid = d.objoid and r.rolcanlogin`, connectors.IDs(principals), Label)
	if err != nil {
		return nil, classify("list the labelled roles", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (connectors.Found, error) {
		f := connectors.Found{Kind: connectors.ServiceAccount}
		return f, row.Scan(&f.Reference, &f.Principal)
	})
	if err != nil {
		return nil, classify("list the labelled roles", err)
	}
	return found, nil
}

// Issue implements connectors.Issuer. It creates a role without rights.
func (c *Connector) Issue(ctx context.Context, name string, principal uuid.UUID) (connectors.Issued, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return connectors.Issued{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	role, password := drillRole(name), rand.Text()
	verifier, err := scram.NewVerifier(password)
	if err != nil {
		return connectors.Issued{}, connectors.Permanent("%w", err)
	}
	quoted := pgx.Identifier{role}.Sanitize()
	for _, sql := range []string{
		"drop role if exists " + quoted, // from an attempt whose result was lost
		"create role " + quoted + " login password '" + verifier + "'",
		"comment on role " + quoted + " is '" + Label + principal.String() + "'",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return connectors.Issued{}, classify("create a role for the drill", err)
		}
	}
	return connectors.Issued{Kind: connectors.ServiceAccount, Reference: role, Secret: connectors.Secret(password)}, nil
}

// drillRole returns the name of a drill's role.
func drillRole(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Remove implements connectors.Issuer.
func (c *Connector) Remove(ctx context.Context, name string) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "drop role if exists "+pgx.Identifier{drillRole(name)}.Sanitize()); err != nil {
		return classify("drop the drill's role", err)
	}
	return nil
}
