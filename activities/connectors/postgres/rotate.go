package postgres

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/postgres/scram"
)

// maxRole is PostgreSQL's maximum length of a name, in bytes.
const maxRole = 63

// Successor implements connectors.Renamer. The name is <account>_lv<8 hex digits of the
// rotation's id>, with the account's name truncated to fit.
func (c *Connector) Successor(t connectors.Target) string {
	if !c.alternate {
		return t.Reference
	}
	// Use the last bytes, since a UUID of version 7 begins with the time.
	suffix := "_lv" + hex.EncodeToString(t.Rotation[12:])
	return strings.ToValidUTF8(t.Account[:min(len(t.Account), maxRole-len(suffix))], "") + suffix
}

// Renew implements connectors.Rotator. It sends the password as a verifier, since a clear
// text would be in the downstream's log under log_statement=ddl. Sessions stay open until
// the new secret is published.
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
	t.Principal = uuid.Nil // the label of a shared account names only one of its holders
	if err := c.refuseForbidden(ctx, conn, t, t.Reference); errors.Is(err, errGone) {
		return connectors.Answer{Outcome: connectors.Gone, Detail: "no such role"}, nil
	} else if err != nil {
		return connectors.Answer{}, err
	}
	if t.Account != t.Reference {
		if err := c.refuseForbidden(ctx, conn, t, t.Account); errors.Is(err, errGone) {
			return connectors.Answer{}, connectors.Permanent(
				"the role %s, which the account acts as, does not exist: end the account manually", t.Account,
			)
		} else if err != nil {
			return connectors.Answer{}, err
		}
	}
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	if t.NewReference == t.Reference {
		if _, err := conn.Exec(
			ctx, "alter role "+pgx.Identifier{t.Reference}.Sanitize()+" password '"+verifier+"'",
		); err != nil {
			return connectors.Answer{}, classify("replace the password", err)
		}
		return connectors.Answer{Outcome: connectors.Done, Detail: "password replaced"}, nil
	}
	skipped, err := createSuccessor(ctx, conn, t, verifier)
	if err != nil {
		return connectors.Answer{}, classify("create the successor role", err)
	}
	detail := "created the role " + t.NewReference
	if skipped > 0 {
		detail += fmt.Sprintf(" without %d settings of the account, which the connector's role may not set", skipped)
	}
	return connectors.Answer{Outcome: connectors.Done, Detail: detail}, nil
}

// createSuccessor creates a login role that acts as the account's role, with its settings.
// If an earlier attempt has created the role, it sets its password again. It returns the number of
// settings that it could not copy.
func createSuccessor(
	ctx context.Context, conn *pgx.Conn, t connectors.Target, verifier string,
) (skipped int, err error) {
	role, actsAs := pgx.Identifier{t.NewReference}.Sanitize(), pgx.Identifier{t.Account}.Sanitize()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var exists bool
		var until *string // a rotation does not extend the account's expiry
		if err := tx.QueryRow(ctx, `
			select exists (select from pg_catalog.pg_roles where rolname = $1),
			       (select rolvaliduntil::pg_catalog.text from pg_catalog.pg_roles where rolname = $2)`,
			t.NewReference, t.Reference).Scan(&exists, &until); err != nil {
			return err
		}
		limit := ""
		if until != nil {
			limit = " valid until '" + *until + "'" // a timestamp formatted by PostgreSQL
		}
		statement := "create role " + role + " login in role " + actsAs
		if exists {
			statement = "alter role " + role + " login"
		}
		if _, err := tx.Exec(ctx, statement+" password '"+verifier+"'"+limit); err != nil {
			return err
		}
		var err error
		if skipped, err = copySettings(ctx, tx, t.Reference, role); err != nil {
			return err
		}
		// Objects that it creates belong to the account's role, so that later successors own them.
		_, err = tx.Exec(ctx, "alter role "+role+" set role "+actsAs)
		return err
	})
	return skipped, err
}

// copySettings copies the settings of a role to another, except `role`, timeouts, transaction
// modes and libraries to load, which a holder could use to lock itself out. It writes them as
// literals: no setting of the account is applied to the connector's session. It skips settings that
// the connector's role may not set: the account could otherwise prevent its rotation.
func copySettings(ctx context.Context, tx pgx.Tx, from, quoted string) (skipped int, err error) {
	rows, err := tx.Query(ctx, `
		select pg_catalog.split_part(c, '=', 1), pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1)
		  from pg_catalog.pg_roles r
		  join pg_catalog.pg_db_role_setting s on s.setrole = r.oid and s.setdatabase = 0, pg_catalog.unnest(s.setconfig) c
		 where r.rolname = $1 and pg_catalog.split_part(c, '=', 1)
		       !~ '^(role|session_.*|.*timeout|.*transaction.*|.*preload_libraries)$'`, from)
	if err != nil {
		return 0, err
	}
	settings, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ Name, Value string }])
	if err != nil {
		return 0, err
	}
	for _, s := range settings {
		name := pgx.Identifier(strings.Split(s.Name, ".")).Sanitize()
		err := pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error {
			_, err := savepoint.Exec(ctx, "alter role "+quoted+" set "+name+" to "+settingValue(s.Name, s.Value))
			return err
		})
		switch {
		case err == nil:
		case connectors.IsPermanent(classify("copy a setting", err)):
			skipped++
		default:
			return skipped, err
		}
	}
	return skipped, nil
}

// listSettings are the settings whose stored value is a list of quoted names (GUC_LIST_QUOTE
// in PostgreSQL's guc_tables.c). Written as one literal, the list would become one name.
var listSettings = []string{
	"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries",
	"shared_preload_libraries",
	"unix_socket_directories",
}

// settingValue returns a stored setting as SQL literals.
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

// splitNames parses a list of names in PostgreSQL's stored format: separated by commas, and
// quoted if necessary, with quotes doubled inside.
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

// Retire implements connectors.Rotator. It disables the login of the old role and ends its
// sessions. If only the password changed, it only ends the sessions.
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
