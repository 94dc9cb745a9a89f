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
	"github.com/leaverhq/leaver/internal/inventory"
	"github.com/leaverhq/leaver/internal/seal"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// downstream is a database with a role that may administer others.
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
	t.Setenv("TEST_DOWNSTREAM", address)
	c, err := postgres.New(postgres.Config{URL: "env:TEST_DOWNSTREAM"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (d *downstream) issue(t *testing.T) connectors.Target {
	name, password := d.role(t, "")
	return connectors.Target{Item: uuid.New(), Kind: inventory.ServiceAccount, Reference: name, Secret: seal.Secret(password)}
}

func (d *downstream) logsIn(role, password string) bool {
	conn, err := pgx.Connect(context.Background(), d.url(role, password))
	if err != nil {
		return false
	}
	return conn.Close(context.Background()) == nil
}

func TestContract(t *testing.T) {
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

func TestRevocationEndsOpenSessions(t *testing.T) {
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

func TestRotationPutsTheNewSecretInThePlaceOfTheOld(t *testing.T) {
	d := newDownstream(t)
	target := d.issue(t)
	target.NewSecret = seal.Secret(rand.Text())
	connector := d.connector(t, d.owner)
	for range 2 { // it can be repeated
		if answer, err := connector.Rotate(t.Context(), target); err != nil || answer.Outcome != connectors.Done {
			t.Fatalf("rotate: %+v, %v", answer, err)
		}
	}
	if d.logsIn(target.Reference, target.Secret.Reveal()) {
		t.Error("the old password logs in")
	}
	if !d.logsIn(target.Reference, target.NewSecret.Reveal()) {
		t.Error("the new password does not log in")
	}
	if vitality, _, err := connector.Probe(t.Context(), target); err != nil || vitality != connectors.Dead {
		t.Errorf("the probe of the old one: %s, %v; want dead", vitality, err)
	}
}

func TestRolesThatRunTheDatabaseAreNeverAltered(t *testing.T) {
	d := newDownstream(t)
	super, password := d.role(t, "superuser")
	admin, adminPassword := d.role(t, "createrole")
	for what, c := range map[string]struct {
		connector *postgres.Connector
		target    string
	}{
		"a superuser":            {d.connector(t, d.owner), super},
		"the connector's own":    {d.connector(t, d.url(admin, adminPassword)), admin},
		"the cluster's first":    {d.connector(t, d.owner), "postgres"},
		"one it has no right to": {d.connector(t, d.url(admin, adminPassword)), super},
	} {
		_, err := c.connector.Revoke(t.Context(), connectors.Target{Reference: c.target, Secret: seal.Secret(password)})
		if !connectors.IsPermanent(err) {
			t.Errorf("%s: %v, want a permanent refusal", what, err)
		}
	}
	if !d.logsIn(super, password) {
		t.Error("the superuser was altered")
	}
}

func TestAConnectorWhoseOwnLoginIsRefusedSaysSo(t *testing.T) {
	d := newDownstream(t)
	admin, _ := d.role(t, "createrole")
	_, err := d.connector(t, d.url(admin, "wrong")).Revoke(t.Context(), d.issue(t))
	if !connectors.IsPermanent(err) || !strings.Contains(err.Error(), "28P01") {
		t.Errorf("%v; want permanent, and SQLSTATE 28P01", err)
	}
}
