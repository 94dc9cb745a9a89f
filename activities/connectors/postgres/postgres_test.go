package postgres_test

import (
	"context"
	"crypto/rand"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/activities/connectors/postgres"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// downstream is a database, with the URL of a role that may administer others.
type downstream struct {
	owner string
	conn  *pgx.Conn
}

func newDownstream(t *testing.T) *downstream {
	t.Helper()
	owner := stacktest.NewDownstream(t)
	conn, err := pgx.Connect(context.Background(), owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return &downstream{owner: owner, conn: conn}
}

func (d *downstream) exec(t *testing.T, sql string) {
	t.Helper()
	if _, err := d.conn.Exec(context.Background(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// role creates a login role with a password, dropped when the test ends.
func (d *downstream) role(t *testing.T, attributes string) (name, password string) {
	t.Helper()
	name, password = "r_"+strings.ReplaceAll(uuid.NewString(), "-", ""), rand.Text()
	d.exec(t, "create role "+name+" login "+attributes+" password '"+password+"'")
	t.Cleanup(func() { d.exec(t, "drop role if exists "+name) })
	return name, password
}

func (d *downstream) url(role, password string) string {
	u, _ := url.Parse(d.owner)
	q := u.Query()
	q.Set("user", role)
	q.Set("password", password)
	u.RawQuery = q.Encode()
	return u.String()
}

func (d *downstream) connector(t *testing.T, address string) *postgres.Connector {
	t.Helper()
	return d.configured(t, postgres.Config{URL: "env:TEST_DOWNSTREAM"}, address)
}

// dropLater drops a successor when the test ends, before the role that it acts as.
func (d *downstream) dropLater(t *testing.T, role string) {
	t.Cleanup(func() { d.exec(t, "drop role if exists "+role) })
}

func (d *downstream) configured(t *testing.T, settings postgres.Config, address string) *postgres.Connector {
	t.Helper()
	t.Setenv("TEST_DOWNSTREAM", address)
	c, err := postgres.New(settings)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (d *downstream) issue(t *testing.T) connectors.Target {
	name, password := d.role(t, "")
	return connectors.Target{
		Item: uuid.New(), Kind: connectors.ServiceAccount, Reference: name, Account: name,
		Secret: connectors.Secret(password),
	}
}

func (d *downstream) logsIn(role, password string) bool {
	conn, err := pgx.Connect(context.Background(), d.url(role, password))
	if err != nil {
		return false
	}
	return conn.Close(context.Background()) == nil
}

func TestPostgres_Contract(t *testing.T) {
	d := newDownstream(t)
	contract.Run(t, contract.Suite{
		Connector: d.connector(t, d.owner), Verifies: true,
		Issue: d.issue,
		Works: func(_ *testing.T, target connectors.Target) bool {
			return d.logsIn(target.Reference, target.Secret.Reveal())
		},
		Down:    d.connector(t, "postgres://x@"+contract.Closed(t)+"/x"),
		Hanging: d.connector(t, "postgres://x@"+contract.Silent(t)+"/x?sslmode=disable"),
	})
}

func TestRevoke_EndsOpenSessions(t *testing.T) {
	d := newDownstream(t)
	target := d.issue(t)
	session, err := pgx.Connect(t.Context(), d.url(target.Reference, target.Secret.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = session.Close(context.Background()) }()
	if _, err := d.connector(t, d.owner).Revoke(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Exec(t.Context(), "select 1"); err == nil {
		t.Error("the session is still open")
	}
}

// rotate runs the steps of a rotation, each twice, since each can be repeated.
func rotate(t *testing.T, c *postgres.Connector, target connectors.Target) connectors.Target {
	t.Helper()
	target.NewSecret, target.Rotation = connectors.Secret(rand.Text()), uuid.Must(uuid.NewV7())
	target.NewReference = c.Successor(target)
	for _, step := range []func(context.Context, connectors.Target) (connectors.Answer, error){
		c.Renew, c.Renew, c.Retire, c.Retire,
	} {
		if answer, err := step(t.Context(), target); err != nil || answer.Outcome != connectors.Done {
			t.Fatalf("rotate: %+v, %v", answer, err)
		}
	}
	return target
}

func TestRotation_ReplacesTheSecret(t *testing.T) {
	d := newDownstream(t)
	password := postgres.Config{URL: "env:TEST_DOWNSTREAM", Rotation: "password"}
	for name, c := range map[string]*postgres.Connector{
		"alternate": d.connector(t, d.owner), "password": d.configured(t, password, d.owner),
	} {
		t.Run(name, func(t *testing.T) {
			target := rotate(t, c, d.issue(t))
			d.dropLater(t, target.NewReference)
			if d.logsIn(target.Reference, target.Secret.Reveal()) {
				t.Error("the old password logs in")
			}
			if !d.logsIn(target.NewReference, target.NewSecret.Reveal()) {
				t.Error("the new password does not log in")
			}
			if vitality, detail, err := c.Probe(t.Context(), target); err != nil || vitality != connectors.Dead {
				t.Errorf("probe of the old secret: %s (%s), %v; want dead", vitality, detail, err)
			}
		})
	}
}

func TestRotation_OldSecretWorksUntilRetired(t *testing.T) {
	d := newDownstream(t)
	c, target := d.connector(t, d.owner), d.issue(t)
	target.NewSecret, target.Rotation = connectors.Secret(rand.Text()), uuid.Must(uuid.NewV7())
	target.NewReference = c.Successor(target)
	if _, err := c.Renew(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	d.dropLater(t, target.NewReference)
	for _, login := range [][2]string{
		{target.Reference, target.Secret.Reveal()}, {target.NewReference, target.NewSecret.Reveal()},
	} {
		if !d.logsIn(login[0], login[1]) {
			t.Errorf("%s cannot log in between Renew and Retire", login[0])
		}
	}
}

// TestRotation_SuccessorActsAsTheAccount checks that rights, ownership and settings of the
// account are preserved over several rotations.
func TestRotation_SuccessorActsAsTheAccount(t *testing.T) {
	d := newDownstream(t)
	c, target := d.connector(t, d.owner), d.issue(t)
	account := target.Reference
	d.exec(t, "create schema s_"+account+" authorization "+account)
	d.exec(t, "alter role "+account+" set search_path = s_"+account+", public")
	// A holder may set timeouts that would abort its own rotation.
	d.exec(t, "alter role "+account+" set statement_timeout = '1ms'")
	d.exec(t, "alter role "+account+" set idle_in_transaction_session_timeout = '1ms'")
	t.Cleanup(func() { d.exec(t, "drop schema s_"+account+" cascade") })
	for n := range 2 {
		target = rotate(t, c, target)
		d.dropLater(t, target.NewReference)
		target.Reference, target.Secret = target.NewReference, target.NewSecret
		conn, err := pgx.Connect(t.Context(), d.url(target.Reference, target.Secret.Reveal()))
		if err != nil {
			t.Fatalf("after rotation %d: %v", n+1, err)
		}
		if _, err := conn.Exec(t.Context(), "create table made_"+string(rune('a'+n))+" ()"); err != nil {
			t.Errorf("after rotation %d: %v", n+1, err)
		}
		var owner string
		if err := conn.QueryRow(
			t.Context(), `select tableowner from pg_tables where schemaname = $1 order by tablename desc limit 1`,
			"s_"+account,
		).Scan(&owner); err != nil || owner != account {
			t.Errorf("after rotation %d the table belongs to %q, want %s (%v)", n+1, owner, account, err)
		}
		_ = conn.Close(t.Context())
	}
}

func TestBlock_KeepsThePassword(t *testing.T) {
	d := newDownstream(t)
	c, target := d.connector(t, d.owner), d.issue(t)
	if _, err := c.Block(t.Context(), target); err != nil {
		t.Fatal(err)
	}
	if d.logsIn(target.Reference, target.Secret.Reveal()) {
		t.Error("the blocked role logs in")
	}
	d.exec(t, "alter role "+target.Reference+" login")
	if !d.logsIn(target.Reference, target.Secret.Reveal()) {
		t.Error("the role cannot log in after the block was lifted")
	}
}

func TestDiscover_FindsRolesByLabel(t *testing.T) {
	d := newDownstream(t)
	c, ada, bob := d.connector(t, d.owner), uuid.New(), uuid.New()
	hers, _ := d.role(t, "")
	d.exec(t, "comment on role "+hers+" is 'the reports. "+postgres.Label+ada.String()+"'")
	his, _ := d.role(t, "")
	d.exec(t, "comment on role "+his+" is '"+postgres.Label+bob.String()+"'")
	gone, _ := d.role(t, "")
	d.exec(t, "comment on role "+gone+" is '"+postgres.Label+ada.String()+"'")
	d.exec(t, "alter role "+gone+" nologin")
	found, err := c.Discover(t.Context(), []connectors.Principal{{ID: ada}, {ID: uuid.New()}})
	if err != nil || len(found) != 1 || found[0].Reference != hers || found[0].Principal != ada ||
		found[0].Kind != connectors.ServiceAccount {
		t.Errorf("found %+v, %v; want the role %s of %s", found, err, hers, ada)
	}
}

func TestIssue_IsRepeatableAndRemovable(t *testing.T) {
	d := newDownstream(t)
	c := d.connector(t, d.owner)
	name := "leaver-drill-" + uuid.NewString()[:8]
	var issued connectors.Issued
	for range 2 {
		var err error
		if issued, err = c.Issue(t.Context(), name, uuid.New()); err != nil {
			t.Fatal(err)
		}
	}
	if !d.logsIn(issued.Reference, issued.Secret.Reveal()) {
		t.Error("the drill's role cannot log in")
	}
	for range 2 {
		if err := c.Remove(t.Context(), issued.Reference); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRevoke_NeverAltersRolesThatRunTheDatabase(t *testing.T) {
	d := newDownstream(t)
	super, password := d.role(t, "superuser")
	admin, adminPassword := d.role(t, "createrole")
	for what, c := range map[string]struct {
		connector *postgres.Connector
		target    string
	}{
		"a superuser":             {d.connector(t, d.owner), super},
		"the connector's own":     {d.connector(t, d.url(admin, adminPassword)), admin},
		"the bootstrap superuser": {d.connector(t, d.owner), "postgres"},
		"without the privilege":   {d.connector(t, d.url(admin, adminPassword)), super},
	} {
		_, err := c.connector.Revoke(t.Context(), connectors.Target{Reference: c.target, Secret: connectors.Secret(password)})
		if !connectors.IsPermanent(err) {
			t.Errorf("%s: %v, want a permanent refusal", what, err)
		}
	}
	if !d.logsIn(super, password) {
		t.Error("the superuser was altered")
	}
}

func TestRevoke_ReportsRefusedConnectorLogin(t *testing.T) {
	d := newDownstream(t)
	admin, _ := d.role(t, "createrole")
	_, err := d.connector(t, d.url(admin, "wrong")).Revoke(t.Context(), d.issue(t))
	if !connectors.IsPermanent(err) || !strings.Contains(err.Error(), "28P01") {
		t.Errorf("%v; want permanent, and SQLSTATE 28P01", err)
	}
}

// TestRevoke_ClassifiesServerErrors lists errors of the server, and whether they are permanent.
func TestRevoke_ClassifiesServerErrors(t *testing.T) {
	d := newDownstream(t)
	for name, row := range map[string]struct {
		attributes string // of the connector's own role
		settings   string // of the same, for each of its sessions
		database   string
		state      string
		permanent  bool
	}{
		"no privilege on roles": {state: "42501", permanent: true},
		"no such database":      {attributes: "superuser", database: "nowhere", state: "3D000", permanent: true},
		"too many connections":  {attributes: "connection limit 0", state: "53300"},
		"read-only standby":     {attributes: "superuser", settings: "default_transaction_read_only = on", state: "25006"},
		"role is locked":        {attributes: "superuser", settings: "lock_timeout = '50ms'", state: "55P03"},
		"statement timeout":     {attributes: "superuser", settings: "statement_timeout = '50ms'", state: "57014"},
	} {
		t.Run(name, func(t *testing.T) {
			admin, password := d.role(t, row.attributes)
			target := d.issue(t)
			if row.settings != "" {
				d.exec(t, "alter role "+admin+" set "+row.settings)
			}
			if row.state == "55P03" || row.state == "57014" {
				tx, err := d.conn.Begin(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = tx.Rollback(context.Background()) }()
				if _, err := tx.Exec(
					context.Background(), "alter role "+target.Reference+" connection limit 5",
				); err != nil {
					t.Fatal(err)
				}
			}
			address := d.url(admin, password)
			if row.database != "" {
				u, _ := url.Parse(address)
				u.Path = "/" + row.database
				address = u.String()
			}
			_, err := d.connector(t, address).Revoke(t.Context(), target)
			if err == nil || !strings.Contains(err.Error(), row.state) || connectors.IsPermanent(err) != row.permanent {
				t.Errorf("%v; want SQLSTATE %s, permanent %t", err, row.state, row.permanent)
			}
			contract.NoSecret(t, err, target)
		})
	}
}

func TestRevoke_RetriesNetworkFaults(t *testing.T) {
	d := newDownstream(t)
	target := d.issue(t)
	contract.RunFaults(t, target, func(ctx context.Context, address string) error {
		_, err := d.connector(t, "postgres://x@"+address+"/x?sslmode=disable").Revoke(ctx, target)
		return err
	})
}
