package ldap_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goldap "github.com/go-ldap/ldap/v3"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/activities/connectors/ldap"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

const (
	suffix = "dc=example,dc=com"
	people = "ou=agents," + suffix
	admin  = "cn=admin," + suffix
)

// directory is an OpenLDAP server that the test started.
type directory struct {
	t   *testing.T
	url string
	n   int
}

// start starts a server. Nobody may read its other naming contexts. It skips the test if slapd is not installed.
func start(t *testing.T, others ...string) *directory {
	t.Helper()
	program := "/usr/sbin/slapd"
	if found, err := exec.LookPath("slapd"); err == nil {
		program = found
	}
	if _, err := os.Stat(program); err != nil {
		t.Skip("slapd is not installed")
	}
	dir := t.TempDir()
	text := "modulepath /usr/lib/ldap\nmoduleload back_mdb\n"
	for _, schema := range []string{"core", "cosine", "inetorgperson", "nis"} {
		text += "include /etc/ldap/schema/" + schema + ".schema\n"
	}
	text += "pidfile " + dir + "/pid\ndatabase mdb\nsuffix \"" + suffix + "\"\nrootdn \"" + admin + "\"\nrootpw admin\ndirectory " + dir +
		"\naccess to attrs=userPassword by anonymous auth by * none\naccess to * by dn.exact=\"cn=weak," + people + "\" read by * read\n"
	for _, other := range others {
		text += "database mdb\nsuffix \"" + other + "\"\ndirectory " + t.TempDir() + "\naccess to * by * none\n"
	}
	file := filepath.Join(dir, "slapd.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &directory{t: t, url: "ldap://" + listener.Addr().String()}
	_ = listener.Close()
	process := exec.CommandContext(t.Context(), program, "-f", file, "-h", d.url, "-d", "0")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	stacktest.Eventually(t, 15*time.Second, "the server's start", func() bool {
		conn, err := goldap.DialURL(d.url)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	d.add(suffix, "dcObject", map[string]string{"objectClass": "organization", "o": "Example", "dc": "example"})
	d.add(people, "organizationalUnit", map[string]string{"ou": "agents"})
	return d
}

// as runs with a connection of the administrator.
func (d *directory) as(run func(*goldap.Conn) error) {
	d.t.Helper()
	conn, err := goldap.DialURL(d.url)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Bind(admin, "admin"); err != nil {
		d.t.Fatal(err)
	}
	if err := run(conn); err != nil {
		d.t.Fatal(err)
	}
}

func (d *directory) add(dn, class string, attributes map[string]string) {
	d.t.Helper()
	request := goldap.NewAddRequest(dn, nil)
	classes := []string{class}
	for name, value := range attributes {
		if name == "objectClass" {
			classes = append(classes, value)
			continue
		}
		request.Attribute(name, []string{value})
	}
	request.Attribute("objectClass", classes)
	d.as(func(conn *goldap.Conn) error { return conn.Add(request) })
}

// issue creates an account with a password.
func (d *directory) issue(*testing.T) connectors.Target {
	d.t.Helper()
	d.n++
	name, password := fmt.Sprintf("agent, %d", d.n), rand.Text()
	dn := "cn=" + goldap.EscapeDN(name) + "," + people
	d.add(dn, "inetOrgPerson", map[string]string{"cn": name, "sn": "agent", "uid": fmt.Sprint("agent", d.n), "userPassword": password})
	return connectors.Target{Item: uuid.New(), Kind: connectors.ServiceAccount, Reference: dn, Secret: connectors.Secret(password)}
}

func (d *directory) works(_ *testing.T, target connectors.Target) bool {
	d.t.Helper()
	conn, err := goldap.DialURL(d.url)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close()
	return conn.Bind(target.Reference, target.Secret.Reveal()) == nil
}

func connect(t *testing.T, url string) *ldap.Connector { return connectAs(t, url, admin, "admin") }

func connectAs(t *testing.T, url, dn, password string) *ldap.Connector {
	t.Helper()
	return connectWith(t, ldap.Config{URL: url, BindDN: dn, Base: people, Groups: suffix}, password)
}

// connectIn returns a connector with the groups below a DN.
func connectIn(t *testing.T, url, groups string) *ldap.Connector {
	t.Helper()
	return connectWith(t, ldap.Config{URL: url, BindDN: admin, Base: people, Groups: groups}, "admin")
}

func connectWith(t *testing.T, config ldap.Config, password string) *ldap.Connector {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	config.Password = connectors.SecretRef("file:" + file)
	c, err := ldap.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestLDAP_Contract(t *testing.T) {
	d := start(t)
	contract.Run(t, contract.Suite{
		Connector: connect(t, d.url), Issue: d.issue, Works: d.works, Verifies: true,
		Down: connect(t, "ldap://"+contract.Closed(t)), Hanging: connect(t, "ldap://"+contract.Silent(t)),
	})
}

func TestRevoke_RemovesTheEntryFromItsGroups(t *testing.T) {
	d := start(t)
	c, target, other := connect(t, d.url), d.issue(t), d.issue(t)
	d.add("cn=only,"+suffix, "groupOfNames", map[string]string{"cn": "only", "member": target.Reference})
	d.add("cn=both,"+suffix, "groupOfNames", map[string]string{"cn": "both", "member": target.Reference})
	d.add("cn=posix,"+suffix, "posixGroup", map[string]string{"cn": "posix", "gidNumber": "1", "memberUid": "agent1"})
	d.as(func(conn *goldap.Conn) error {
		request := goldap.NewModifyRequest("cn=both,"+suffix, nil)
		request.Add("member", []string{other.Reference})
		return conn.Modify(request)
	})
	answer, err := c.Revoke(t.Context(), target)
	if err != nil || !strings.Contains(answer.Detail, "removed from 2 groups; it stays the only member of 1 groups") {
		t.Errorf("%+v, %v", answer, err)
	}
	if !d.works(t, other) {
		t.Error("the other account does not work")
	}
}

// TestRevoke_LeavesTheGroupsOfAnotherWithTheSameUID lets the ended entry claim the uid of a person who is neither below
// base nor below groups, as its holder could.
func TestRevoke_LeavesTheGroupsOfAnotherWithTheSameUID(t *testing.T) {
	d := start(t)
	d.add("ou=people,"+suffix, "organizationalUnit", map[string]string{"ou": "people"})
	d.add("ou=groups,"+suffix, "organizationalUnit", map[string]string{"ou": "groups"})
	d.add("cn=ada,ou=people,"+suffix, "inetOrgPerson", map[string]string{"cn": "ada", "sn": "ada", "uid": "agent2"})
	d.add("cn=posix,ou=groups,"+suffix, "posixGroup", map[string]string{"cn": "posix", "gidNumber": "1", "memberUid": "agent2"})
	c, target := connectIn(t, d.url, "ou=groups,"+suffix), d.issue(t)
	d.as(func(conn *goldap.Conn) error {
		request := goldap.NewModifyRequest(target.Reference, nil)
		request.Replace("uid", []string{"agent2"})
		return conn.Modify(request)
	})
	answer, err := c.Revoke(t.Context(), target)
	if err != nil || !strings.Contains(answer.Detail, "removed from 0 groups; groups that name it by its uid are left") {
		t.Errorf("%+v, %v", answer, err)
	}
}

// TestRevoke_LeavesGroupsBesideANamingContextThatItMayNotRead has a second one, such as that of the accesslog overlay.
func TestRevoke_LeavesGroupsBesideANamingContextThatItMayNotRead(t *testing.T) {
	d := start(t, "cn=accesslog")
	d.add("ou=groups,"+suffix, "organizationalUnit", map[string]string{"ou": "groups"})
	c, target := connectIn(t, d.url, "ou=groups,"+suffix), d.issue(t)
	d.add("cn=bots,ou=groups,"+suffix, "groupOfUniqueNames", map[string]string{"cn": "bots", "uniqueMember": target.Reference})
	d.as(func(conn *goldap.Conn) error {
		request := goldap.NewModifyRequest("cn=bots,ou=groups,"+suffix, nil)
		request.Add("uniqueMember", []string{admin})
		return conn.Modify(request)
	})
	answer, err := c.Revoke(t.Context(), target)
	if err != nil || !strings.Contains(answer.Detail, "removed from 1 groups; groups that name it by its uid are left") {
		t.Errorf("%+v, %v", answer, err)
	}
	if d.works(t, target) {
		t.Error("the password works")
	}
}

func TestBlock_IsRefusedOutsideOfActiveDirectory(t *testing.T) {
	d := start(t)
	c, target := connect(t, d.url), d.issue(t)
	if _, err := c.Block(t.Context(), target); !connectors.IsPermanent(err) || !d.works(t, target) {
		t.Errorf("blocked: %v", err)
	}
}

func TestRotate_ReplacesThePassword(t *testing.T) {
	d := start(t)
	c, target := connect(t, d.url), d.issue(t)
	target.Rotation, target.NewReference, target.NewSecret = uuid.New(), target.Reference, connectors.Secret(rand.Text())
	renewed := target
	renewed.Secret = target.NewSecret
	for range 2 {
		if answer, err := c.Renew(t.Context(), target); err != nil || answer.Outcome != connectors.Done {
			t.Fatalf("%+v, %v", answer, err)
		}
		if answer, err := c.Retire(t.Context(), target); err != nil || answer.Outcome != connectors.Done {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
	if d.works(t, target) || !d.works(t, renewed) {
		t.Error("the old password works, or the new one does not")
	}
}

func TestLDAP_EndsOnlyEntriesBelowItsBase(t *testing.T) {
	d := start(t)
	c := connectAs(t, d.url, "cn=own,"+people, "x")
	for _, reference := range []string{
		admin, people, suffix, "CN=Own," + people, "commonName= own," + people, "", "x", "cn=a,dc=other", "1.2.3=x," + people, "cn=ﬁle," + people, "cn=a\u00a0b," + people, `cn=a\c2\a0b,` + people, "OID.2.5.4.3=x," + people,
	} {
		if got, err := c.Accepts(connectors.Registration{Kind: connectors.ServiceAccount, Reference: reference}); err == nil {
			t.Errorf("%q was accepted as %q", reference, got)
		}
		if _, err := c.Revoke(t.Context(), connectors.Target{Reference: reference}); !connectors.IsPermanent(err) {
			t.Errorf("%q: %v", reference, err)
		}
	}
	canonical := map[string]bool{}
	for _, reference := range []string{
		"cn=Bot  ä,OU=agents,dc=example,dc=com", "CN = bot ä, ou=agents , DC=EXAMPLE,dc=com",
		"commonName=Bot a\u0308,organizationalUnitName=agents,domainComponent=example,dc=com",
		"2.5.4.3=bot ä,2.5.4.11=agents,0.9.2342.19200300.100.1.25=example,dc=com",
	} {
		got, err := c.Accepts(connectors.Registration{Kind: connectors.ServiceAccount, Reference: reference})
		if err != nil {
			t.Fatal(err)
		}
		canonical[got] = true
	}
	if len(canonical) != 1 {
		t.Errorf("one entry has the references %v", canonical)
	}
}

func TestLDAP_WithoutRightsIsPermanent(t *testing.T) {
	d := start(t)
	target := d.issue(t)
	d.add("cn=weak,"+people, "person", map[string]string{"cn": "weak", "sn": "weak", "userPassword": "x"})
	c := connectAs(t, d.url, "cn=weak,"+people, "x")
	if _, err := c.Revoke(t.Context(), target); !connectors.IsPermanent(err) {
		t.Errorf("%v", err)
	}
	if err := connectAs(t, d.url, admin, "wrong").Check(context.Background()); !connectors.IsPermanent(err) {
		t.Errorf("a wrong password: %v", err)
	}
	if err := connect(t, d.url).Check(t.Context()); err != nil {
		t.Errorf("the check: %v", err)
	}
}

func TestNew_RefusesPasswordsInClear(t *testing.T) {
	t.Setenv("LDAP_TEST_PASSWORD", "x")
	config := ldap.Config{URL: "ldap://ldap.example.com", BindDN: admin, Password: "env:LDAP_TEST_PASSWORD", Base: people}
	if _, err := ldap.New(config); err == nil {
		t.Error("ldap:// without TLS was accepted")
	}
	config.StartTLS = true
	if _, err := ldap.New(config); err != nil {
		t.Error(err)
	}
}
