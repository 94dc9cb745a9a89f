package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/postgres"
)

// as runs SQL statements in a session of a role.
func (d *downstream) as(t *testing.T, role, password string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.url(role, password))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("as %s: %s: %v", role, sql, err)
		}
	}
}

func (d *downstream) exists(t *testing.T, role string) bool {
	t.Helper()
	var exists bool
	if err := d.conn.QueryRow(
		t.Context(), `select exists (select from pg_roles where rolname = $1)`, role,
	).Scan(&exists); err != nil {
		t.Fatal(err)
	}
	return exists
}

// TestConnector_RunsNothingThatTheAccountDefines uses an account that owns a schema. The
// account defines each function and operator that the connector's SQL could resolve there;
// each creates a superuser if it runs with the connector's rights.
func TestConnector_RunsNothingThatTheAccountDefines(t *testing.T) {
	d := newDownstream(t)
	target := d.issue(t)
	account, schema, backdoor := target.Reference, "evil_"+target.Reference[2:20], "backdoor_"+target.Reference[2:20]
	t.Cleanup(func() { d.exec(t, "drop role if exists "+backdoor) })
	d.exec(t, "create schema "+schema+" authorization "+account)
	t.Cleanup(func() { d.exec(t, "drop schema if exists "+schema+" cascade") })
	t.Cleanup(func() { d.exec(t, "drop owned by "+account+" cascade") })
	d.exec(t, "grant create on schema public to public")
	trap := func(signature, returns, result string) string {
		return "create function " + signature + " returns " + returns + ` language plpgsql as $f$ begin
			if not exists (select from pg_catalog.pg_roles where rolname = '` + backdoor + `') then
			  execute 'create role ` + backdoor + ` superuser login password ''bd'''; end if;
			return ` + result + `; end $f$`
	}
	statements := []string{}
	for _, in := range []string{schema, "public"} {
		statements = append(statements,
			trap(in+".set_config(text, text, boolean)", "text", "pg_catalog.set_config($1, $2, $3)"),
			trap(in+".unnest(uuid[])", "setof uuid", "query select pg_catalog.unnest($1)"),
			trap(in+".unnest(text[])", "setof text", "query select pg_catalog.unnest($1)"),
			trap(in+".split_part(text, text, integer)", "text", "pg_catalog.split_part($1, $2, $3)"),
			trap(in+".strpos(text, text)", "integer", "pg_catalog.strpos($1, $2)"),
			trap(in+".pg_terminate_backend(integer, integer)", "boolean", "true"),
			trap(in+".name_eq_text(name, text)", "boolean", "pg_catalog.nameeqtext($1, $2)"),
			"create operator "+in+".= (leftarg = name, rightarg = text, function = "+in+".name_eq_text)",
		)
	}
	statements = append(statements,
		"alter role "+account+" set search_path = "+schema+", pg_catalog, public",
		"alter role "+account+" set work_mem = '5MB'")
	d.as(t, account, target.Secret.Reveal(), statements...)
	var database string
	if err := d.conn.QueryRow(t.Context(), `select current_database()`).Scan(&database); err != nil {
		t.Fatal(err)
	}
	d.exec(t, "alter database "+database+" set search_path = "+schema+", public") // as its owner could
	principal := uuid.New()
	d.exec(t, "comment on role "+account+" is '"+postgres.Label+principal.String()+"'")

	c := d.connector(t, d.owner)
	if _, err := c.Discover(t.Context(), []connectors.Principal{{ID: principal}}); err != nil {
		t.Error(err)
	}
	if _, _, err := c.Probe(t.Context(), target); err != nil {
		t.Error(err)
	}
	rotated := rotate(t, c, target)
	d.dropLater(t, rotated.NewReference)
	rotated.Reference = rotated.NewReference
	if _, err := c.Revoke(t.Context(), rotated); err != nil {
		t.Error(err)
	}
	if d.exists(t, backdoor) {
		t.Error("a function of the account ran with the connector's rights")
	}
	var settings []string
	if err := d.conn.QueryRow(t.Context(), `
		select setconfig from pg_db_role_setting s join pg_roles r on r.oid = s.setrole where rolname = $1`,
		rotated.NewReference).Scan(&settings); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(settings, "; ")
	if !strings.Contains(got, "search_path="+schema+", pg_catalog, public") || !strings.Contains(got, "work_mem=5MB") {
		t.Errorf("the successor's settings are %s", got)
	}
}

// TestRotation_CopiesAnySetting uses settings whose text could break out of an SQL literal.
func TestRotation_CopiesAnySetting(t *testing.T) {
	d := newDownstream(t)
	target := d.issue(t)
	for _, set := range []string{
		`search_path = "it's", "a ""b"", c", public`, `search_path = ''`, `application_name = 'x''; drop role y; --\'`,
		`my.own = 'a, "b"'`, `temp_tablespaces = ''`,
	} {
		d.exec(t, "alter role "+target.Reference+" set "+set)
		var want, got []string
		read := `select setconfig from pg_db_role_setting s join pg_roles r on r.oid = s.setrole where rolname = $1`
		if err := d.conn.QueryRow(t.Context(), read, target.Reference).Scan(&want); err != nil {
			t.Fatal(err)
		}
		rotated := rotate(t, d.connector(t, d.owner), target)
		if err := d.conn.QueryRow(t.Context(), read, rotated.NewReference).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want)+1 { // plus the setting role
			t.Errorf("%s: %q became %q", set, want, got)
		}
		for _, w := range want {
			if !strings.Contains(strings.Join(got, "\n"), w) {
				t.Errorf("%s: %q is not among %q", set, w, got)
			}
		}
		d.exec(t, "drop role "+rotated.NewReference)
		d.exec(t, "alter role "+target.Reference+" login password '"+target.Secret.Reveal()+"'")
	}
}

func TestRevoke_RefusesPrivilegedRoles(t *testing.T) {
	d := newDownstream(t)
	var database string
	if err := d.conn.QueryRow(t.Context(), `select current_database()`).Scan(&database); err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func(role string){
		"owner of the database": func(role string) { d.exec(t, "alter database "+database+" owner to "+role) },
		"CREATEROLE":            func(role string) { d.exec(t, "alter role "+role+" createrole") },
		"BYPASSRLS":             func(role string) { d.exec(t, "alter role "+role+" bypassrls") },
		"leaver's application role": func(role string) {
			d.exec(t, "do $$ begin create role leaver_app_attack; exception when duplicate_object then end $$")
			d.exec(t, "grant leaver_app_attack to "+role)
		},
		"labelled with another principal": func(role string) {
			d.exec(t, "comment on role "+role+" is '"+postgres.Label+uuid.NewString()+"'")
		},
	} {
		t.Run(name, func(t *testing.T) {
			target := d.issue(t)
			target.Principal = uuid.New()
			prepare(target.Reference)
			t.Cleanup(func() { d.exec(t, "reassign owned by "+target.Reference+" to current_user") })
			if _, err := d.connector(t, d.owner).Revoke(t.Context(), target); !connectors.IsPermanent(err) {
				t.Errorf("%v, want a permanent refusal", err)
			}
			// Reserved does not check labels.
			err := d.connector(t, d.owner).Reserved(t.Context(), target.Reference)
			if name != "labelled with another principal" && !connectors.IsPermanent(err) {
				t.Errorf("at registration: %v, want a permanent refusal", err)
			}
			if !d.logsIn(target.Reference, target.Secret.Reveal()) {
				t.Error("the role was altered")
			}
		})
	}
	t.Run("named by leaver's own configuration", func(t *testing.T) {
		target := d.issue(t)
		c := d.connector(t, d.owner)
		c.Protect(target.Reference)
		if _, err := c.Revoke(t.Context(), target); !connectors.IsPermanent(err) {
			t.Errorf("%v, want a permanent refusal", err)
		}
		if _, err := c.Accepts(connectors.Registration{
			Kind: connectors.ServiceAccount, Reference: target.Reference, HasSecret: true,
		}); err == nil {
			t.Error("a protected role is accepted")
		}
	})
}

func TestAccepts_RefusesNamesThatPostgreSQLTruncates(t *testing.T) {
	c := newDownstream(t).connector(t, "postgres://x@127.0.0.1/x")
	name := strings.Repeat("r", 63)
	if reference, err := c.Accepts(connectors.Registration{
		Kind: connectors.ServiceAccount, Reference: name,
	}); err != nil || reference != name {
		t.Errorf("63 bytes: %q, %v", reference, err)
	}
	if _, err := c.Accepts(connectors.Registration{Kind: connectors.ServiceAccount, Reference: name + "r"}); err == nil {
		t.Error("64 bytes are accepted: PostgreSQL truncates them to the role of 63")
	}
}

// TestAccepts_RefusesReservedRoles checks the roles that are recognised by name. Revoke
// refuses the others.
func TestAccepts_RefusesReservedRoles(t *testing.T) {
	c := newDownstream(t).connector(t, "postgres://admin@127.0.0.1/x")
	c.Protect("leaver")
	for _, role := range []string{"admin", "leaver", "leaver_app_leaver", "pg_signal_backend"} {
		if _, err := c.Accepts(connectors.Registration{Kind: connectors.ServiceAccount, Reference: role}); err == nil {
			t.Errorf("%s is accepted", role)
		}
	}
}

func TestPossesses_NeedsThePassword(t *testing.T) {
	d := newDownstream(t)
	c, target := d.connector(t, d.owner), d.issue(t)
	for secret, want := range map[connectors.Secret]connectors.Vitality{
		target.Secret: connectors.Alive, "i-do-not-know-it": connectors.Dead, "": connectors.Unknown,
	} {
		asked := target
		asked.Secret = secret
		if got, _, err := c.Possesses(t.Context(), asked); err != nil || got != want {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
}

// TestRotation_IsNotBlockedByItsAccount rotates accounts whose settings or sessions make a step of the
// rotation fail, by a connector that is no superuser.
func TestRotation_IsNotBlockedByItsAccount(t *testing.T) {
	for name, block := range map[string]func(t *testing.T, d *downstream, target connectors.Target){
		"a setting of an extension": func(t *testing.T, d *downstream, target connectors.Target) {
			d.as(t, target.Reference, target.Secret.Reveal(),
				"do $$ begin end $$", "alter role current_user set plpgsql.check_asserts = off")
		},
		"a library that does not exist": func(t *testing.T, d *downstream, target connectors.Target) {
			d.as(t, target.Reference, target.Secret.Reveal(),
				"alter role current_user set local_preload_libraries = 'nothing'")
		},
		"the role's connection limit": func(t *testing.T, d *downstream, target connectors.Target) {
			d.exec(t, "alter role "+target.Reference+" connection limit 1")
			session, err := pgx.Connect(t.Context(), d.url(target.Reference, target.Secret.Reveal()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = session.Close(context.Background()) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDownstream(t)
			admin, password := d.role(t, "createrole")
			target := d.issue(t)
			d.exec(t, "grant "+target.Reference+" to "+admin+" with admin option")
			d.exec(t, "grant pg_signal_backend to "+admin)
			block(t, d, target)
			c := d.connector(t, d.url(admin, password))
			if v, detail, err := c.Possesses(t.Context(), target); v != connectors.Alive || err != nil {
				t.Errorf("possession is %s (%s), %v; want alive", v, detail, err)
			}
			target.NewSecret, target.Rotation = "new-secret", uuid.New()
			target.NewReference = c.Successor(target)
			d.dropLater(t, target.NewReference)
			if _, err := c.Renew(t.Context(), target); err != nil {
				t.Fatal(err)
			}
			if !d.logsIn(target.NewReference, "new-secret") {
				t.Error("the successor does not log in")
			}
			if _, err := c.Retire(t.Context(), target); err != nil {
				t.Fatal(err)
			}
			if v, detail, err := c.Probe(t.Context(), target); v != connectors.Dead || err != nil {
				t.Errorf("after the rotation the account is %s (%s), %v; want dead", v, detail, err)
			}
		})
	}
}
