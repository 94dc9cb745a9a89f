package postgres

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/postgres/scram"
)

// maxRole is PostgreSQL's limit of a name, in bytes.
const maxRole = 63

// Successor implements connectors.Rotator: <account>_lv<8 hex of the rotation's id>.
func (c *Connector) Successor(t connectors.Target) string {
	if !c.alternate {
		return t.Reference
	}
	// The last bytes: a UUID of version 7 begins with the time.
	suffix := "_lv" + hex.EncodeToString(t.Rotation[12:])
	return strings.ToValidUTF8(t.Account[:min(len(t.Account), maxRole-len(suffix))], "") + suffix
}

// Renew implements connectors.Rotator. The password is sent as a verifier: in
// plain text it would stand in the downstream's log under log_statement=ddl.
// Sessions stay open: they are ended once everybody has the new secret.
func (c *Connector) Renew(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	verifier, err := scram.NewVerifier(t.NewSecret.Reveal())
	if err != nil {
		return connectors.Answer{}, connectors.Permanent("%w", err)
	}
	conn, err := c.connect(ctx)
	if err != nil {
		return connectors.Answer{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	t.Principal = uuid.Nil // a shared account's label names one of its holders
	if err := c.refuseForbidden(ctx, conn, t, t.Reference); errors.Is(err, errGone) {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such role"}, nil
	} else if err != nil {
		return connectors.Answer{}, err
	}
	if t.Account != t.Reference {
		if err := c.refuseForbidden(ctx, conn, t, t.Account); errors.Is(err, errGone) {
			return connectors.Answer{}, connectors.Permanent("the role %s, which the account acts as, is gone", t.Account)
		} else if err != nil {
			return connectors.Answer{}, err
		}
	}
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	if t.NewReference == t.Reference {
		if _, err := conn.Exec(ctx, "alter role "+pgx.Identifier{t.Reference}.Sanitize()+" password '"+verifier+"'"); err != nil {
			return connectors.Answer{}, classify("replace the password", err)
		}
		return connectors.Answer{Outcome: connectors.Done, Detail: "password replaced"}, nil
	}
	if err := createSuccessor(ctx, conn, t, verifier); err != nil {
		return connectors.Answer{}, classify("make a role beside it", err)
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: "made the role " + t.NewReference + " beside it"}, nil
}

// createSuccessor makes a login role that acts as the old one's, with its
// settings, or gives one that an earlier attempt made the same password again.
func createSuccessor(ctx context.Context, conn *pgx.Conn, t connectors.Target, verifier string) error {
	role, actsAs := pgx.Identifier{t.NewReference}.Sanitize(), pgx.Identifier{t.Account}.Sanitize()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var exists bool
		var until *string // no rotation prolongs an account's life
		if err := tx.QueryRow(ctx, `
			select exists (select from pg_catalog.pg_roles where rolname = $1),
			       (select rolvaliduntil::pg_catalog.text from pg_catalog.pg_roles where rolname = $2)`,
			t.NewReference, t.Reference).Scan(&exists, &until); err != nil {
			return err
		}
		limit := ""
		if until != nil {
			limit = " valid until '" + *until + "'" // a time, as PostgreSQL wrote it
		}
		statement := "create role " + role + " login in role " + actsAs
		if exists {
			statement = "alter role " + role + " login"
		}
		if _, err := tx.Exec(ctx, statement+" password '"+verifier+"'"+limit); err != nil {
			return err
		}
		if err := copySettings(ctx, tx, t.Reference, role); err != nil {
			return err
		}
		// What it creates belongs to the role that the next successor acts as, too.
		_, err := tx.Exec(ctx, "alter role "+role+" set role "+actsAs)
		return err
	})
}

// copySettings gives a role the settings of another, but for `role` itself, and for
// timeouts and transaction modes, which are the holder's own. They are written as
// literals: no setting of the account's is ever applied to the connector's session.
func copySettings(ctx context.Context, tx pgx.Tx, from, quoted string) error {
	rows, err := tx.Query(ctx, `
		select pg_catalog.split_part(c, '=', 1), pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1) from pg_catalog.pg_roles r
		  join pg_catalog.pg_db_role_setting s on s.setrole = r.oid and s.setdatabase = 0, pg_catalog.unnest(s.setconfig) c
		 where r.rolname = $1 and pg_catalog.split_part(c, '=', 1) !~ '^(role|session_.*|.*timeout|.*transaction.*)$'`, from)
	if err != nil {
		return err
	}
	settings, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Value string }])
	if err != nil {
		return err
	}
	for _, s := range settings {
		name := pgx.Identifier(strings.Split(s.Name, ".")).Sanitize()
		if _, err := tx.Exec(ctx, "alter role "+quoted+" set "+name+" to "+settingValue(s.Name, s.Value)); err != nil {
			return err
		}
	}
	return nil
}

// listSettings are those whose stored value is a list of quoted names (GUC_LIST_QUOTE in
// PostgreSQL's guc_tables.c): as one literal they would be one name.
var listSettings = []string{
	"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries", "shared_preload_libraries", "unix_socket_directories",
}

// settingValue writes a stored setting as literals.
func settingValue(name, stored string) string {
	if !slices.Contains(listSettings, name) {
		return quoteLiteral(stored)
	}
	names := splitNames(stored)
	if len(names) == 0 {
		return "''"
	}
	for i, n := range names {
		names[i] = quoteLiteral(n)
	}
	return strings.Join(names, ", ")
}

func quoteLiteral(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// splitNames reads a list of names as PostgreSQL stores it: separated by commas, each
// quoted where it needs to be, with quotes doubled inside.
func splitNames(list string) []string {
	var names []string
	for rest := strings.TrimSpace(list); rest != ""; {
		var name string
		if rest[0] == '"' {
			end := 1
			for end < len(rest) && (rest[end] != '"' || strings.HasPrefix(rest[end:], `""`)) {
				if rest[end] == '"' {
					end++
				}
				end++
			}
			name, rest = strings.ReplaceAll(rest[1:min(end, len(rest))], `""`, `"`), rest[min(end+1, len(rest)):]
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			name, rest, _ = strings.Cut(rest, ",")
			name = strings.TrimSpace(name)
		}
		names, rest = append(names, name), strings.TrimSpace(rest)
	}
	return names
}

// Retire implements connectors.Rotator: the old role cannot log in any more, and
// its sessions end; where only the password changed, the sessions do.
func (c *Connector) Retire(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	if t.NewReference != t.Reference {
		t.Principal = uuid.Nil // as in Renew
		return c.Revoke(ctx, t)
	}
	conn, err := c.connect(ctx)
	if err != nil {
		return connectors.Answer{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	return endSessions(ctx, conn, t.Reference, "password replaced")
}
