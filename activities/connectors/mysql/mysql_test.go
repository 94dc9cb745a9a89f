package mysql_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/activities/connectors/mysql"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// server is a MariaDB server that the test started.
type server struct {
	address string
	admin   *sql.DB
	n       atomic.Int64
}

// start starts a server. It skips the test if MariaDB is not installed.
func start(t *testing.T) *server {
	t.Helper()
	install, err := exec.LookPath("mariadb-install-db")
	if err != nil {
		t.Skip("MariaDB is not installed")
	}
	program := "/usr/sbin/mariadbd"
	if found, err := exec.LookPath("mariadbd"); err == nil {
		program = found
	}
	// Not t.TempDir: the path of a socket is at most 107 bytes long.
	dir, err := os.MkdirTemp("", "leaver-mysql")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "s")
	if out, err := exec.CommandContext(t.Context(), install, "--no-defaults", "--datadir="+data, "--user="+userName(),
		"--auth-root-authentication-method=normal", "--skip-test-db").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	_, port, _ := strings.Cut(address, ":")
	process := exec.CommandContext(t.Context(), program, "--no-defaults", "--datadir="+data, "--user="+userName(),
		"--bind-address=127.0.0.1", "--port="+port, "--socket="+socket, "--pid-file="+filepath.Join(dir, "pid"),
		"--innodb-flush-log-at-trx-commit=0", "--skip-log-bin")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	s := &server{address: address}
	if s.admin, err = sql.Open("mysql", "root@unix("+socket+")/"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.admin.Close() })
	stacktest.Eventually(t, 30*time.Second, "the server's start", func() bool { return s.admin.PingContext(t.Context()) == nil })
	s.run(t, "create user leaver@'%' identified by 'admin'", "grant create user, connection admin, process on *.* to leaver@'%'",
		"grant select on mysql.user to leaver@'%'", "grant select on mysql.global_priv to leaver@'%'")
	return s
}

func userName() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return os.Getenv("USER")
}

func (s *server) run(t *testing.T, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := s.admin.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func connect(t *testing.T, address string) *mysql.Connector {
	return connectAs(t, "leaver:admin", address)
}

func connectAs(t *testing.T, login, address string) *mysql.Connector {
	t.Helper()
	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte(login+"@tcp("+address+")/"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := mysql.New(mysql.Config{DSN: connectors.SecretRef("file:" + file)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// issue creates an account with a password.
func (s *server) issue(t *testing.T) connectors.Target {
	t.Helper()
	user, password := fmt.Sprintf("agent'%d", s.n.Add(1)), rand.Text()
	s.run(t, "create user '"+strings.ReplaceAll(user, "'", "''")+"'@'%' identified by '"+password+"'")
	return connectors.Target{
		Item: uuid.New(), Kind: connectors.ServiceAccount, Reference: user + "@%", Secret: connectors.Secret(password),
	}
}

// login opens a session with an account's password.
func (s *server) login(t *testing.T, target connectors.Target) (*sql.Conn, error) {
	t.Helper()
	user, _, _ := strings.Cut(target.Reference, "@")
	db, err := sql.Open("mysql", user+":"+target.Secret.Reveal()+"@tcp("+s.address+")/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db.Conn(t.Context())
}

func (s *server) works(t *testing.T, target connectors.Target) bool {
	t.Helper()
	conn, err := s.login(t, target)
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

func TestMySQL(t *testing.T) {
	s := start(t)
	t.Run("contract", func(t *testing.T) {
		contract.Run(t, contract.Suite{
			Connector: connect(t, s.address), Issue: s.issue, Works: s.works, Verifies: true,
			Down: connect(t, contract.Closed(t)), Hanging: connect(t, contract.Silent(t)),
		})
	})
	for name, test := range map[string]func(*testing.T, *server){
		"revoke ends open sessions":              revokeEndsOpenSessions,
		"revoke compares names with case":        revokeComparesNamesWithCase,
		"block leaves the password":              blockLeavesThePassword,
		"rotate replaces the password":           rotateReplacesThePassword,
		"reserved accounts are left":             reservedAccountsAreLeft,
		"without rights errors are permanent":    withoutRightsErrorsArePermanent,
		"an account at another host proves none": anotherHostProvesNothing,
		"a drill's account is removed":           drillAccountIsRemoved,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

func revokeEndsOpenSessions(t *testing.T, s *server) {
	c, target := connect(t, s.address), s.issue(t)
	session, err := s.login(t, target)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Revoke(t.Context(), target)
	if err != nil || !strings.Contains(answer.Detail, "1 sessions ended") {
		t.Errorf("%+v, %v", answer, err)
	}
	if session.PingContext(t.Context()) == nil {
		t.Error("the open session works")
	}
	s.run(t, "alter user '"+strings.ReplaceAll(strings.TrimSuffix(target.Reference, "@%"), "'", "''")+"'@'%' account unlock")
	if s.works(t, target) {
		t.Error("the old password works once the account is unlocked")
	}
}

// revokeComparesNamesWithCase ends bot, of which BOT is another account.
func revokeComparesNamesWithCase(t *testing.T, s *server) {
	s.run(t, "create or replace user bot@'%' identified by 'x'", "create or replace user BOT@'%' identified by 'x'")
	other := connectors.Target{Reference: "BOT@%", Secret: "x"}
	session, err := s.login(t, other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, s.address).Revoke(t.Context(), connectors.Target{Reference: "bot@%", Secret: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := session.PingContext(t.Context()); err != nil || !s.works(t, other) {
		t.Errorf("the other account lost its session or its login: %v", err)
	}
}

func blockLeavesThePassword(t *testing.T, s *server) {
	c, target := connect(t, s.address), s.issue(t)
	if _, err := c.Block(t.Context(), target); err != nil || s.works(t, target) {
		t.Fatalf("blocked: %v", err)
	}
	s.run(t, "alter user '"+strings.ReplaceAll(strings.TrimSuffix(target.Reference, "@%"), "'", "''")+"'@'%' account unlock")
	if !s.works(t, target) {
		t.Error("the password is lost")
	}
}

func rotateReplacesThePassword(t *testing.T, s *server) {
	c, target := connect(t, s.address), s.issue(t)
	target.Rotation, target.NewReference, target.NewSecret = uuid.New(), target.Reference, connectors.Secret(rand.Text())
	renewed := target
	renewed.Secret = target.NewSecret
	session, err := s.login(t, target)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // an attempt may be repeated
		if answer, err := c.Renew(t.Context(), target); err != nil || answer.Outcome != connectors.Done {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
	if err := session.PingContext(t.Context()); err != nil {
		t.Errorf("an open session ended before the old password is retired: %v", err)
	}
	for range 2 {
		if answer, err := c.Retire(t.Context(), target); err != nil || answer.Outcome != connectors.Done {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
	if s.works(t, target) || !s.works(t, renewed) || session.PingContext(t.Context()) == nil {
		t.Error("the old password or its session works, or the new password does not")
	}
}

func reservedAccountsAreLeft(t *testing.T, s *server) {
	c := connect(t, s.address)
	for _, reference := range []string{"root", "root@localhost", "mariadb.sys@localhost", "leaver", "LEAVER@%", "", "a\\b", "a\nb", "@%"} {
		if _, err := c.Accepts(connectors.Registration{Kind: connectors.ServiceAccount, Reference: reference}); err == nil {
			t.Errorf("%q was accepted", reference)
		}
		if _, err := c.Revoke(t.Context(), connectors.Target{Reference: reference}); !connectors.IsPermanent(err) {
			t.Errorf("%q: %v", reference, err)
		}
	}
	if got, err := c.Accepts(connectors.Registration{Kind: connectors.ServiceAccount, Reference: "bot"}); got != "bot@%" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func withoutRightsErrorsArePermanent(t *testing.T, s *server) {
	target := s.issue(t)
	s.run(t, "create or replace user weak@'%' identified by 'x'")
	c := connectAs(t, "weak:x", s.address)
	if _, err := c.Revoke(t.Context(), target); !connectors.IsPermanent(err) || !strings.Contains(err.Error(), "privilege") {
		t.Errorf("%v", err)
	}
	for _, login := range []string{"weak:x", "leaver:wrong"} {
		if err := connectAs(t, login, s.address).Check(context.Background()); !connectors.IsPermanent(err) {
			t.Errorf("the check as %s: %v", login, err)
		}
	}
	s.run(t, "create or replace user blind@'%' identified by 'x'", "grant create user, connection admin on *.* to blind@'%'",
		"grant select on mysql.user to blind@'%'", "grant select on mysql.global_priv to blind@'%'")
	if _, err := connectAs(t, "blind:x", s.address).Revoke(t.Context(), target); !connectors.IsPermanent(err) ||
		!strings.Contains(err.Error(), "PROCESS") {
		t.Errorf("without PROCESS: %v", err)
	}
	if err := connect(t, s.address).Check(t.Context()); err != nil {
		t.Errorf("the check: %v", err)
	}
}

// anotherHostProvesNothing has two accounts of one user, of which the server takes the nearer one.
func anotherHostProvesNothing(t *testing.T, s *server) {
	s.run(t, "create or replace user twice@'%' identified by 'x'", "create or replace user twice@'127.0.0.1' identified by 'x'")
	s.run(t, "create or replace user elsewhere@'10.1.2.3' identified by 'x'")
	for _, target := range []connectors.Target{
		{Reference: "twice@%", Secret: "x"}, {Reference: "twice@%", Secret: "wrong"}, {Reference: "elsewhere@10.1.2.3", Secret: "x"},
	} {
		vitality, detail, err := connect(t, s.address).Probe(t.Context(), target)
		if err != nil || vitality != connectors.Unknown {
			t.Errorf("%s: %s (%s), %v; want unknown", target.Reference, vitality, detail, err)
		}
	}
}

func drillAccountIsRemoved(t *testing.T, s *server) {
	c := connect(t, s.address)
	issued, err := c.Issue(t.Context(), "d1", uuid.New())
	if err != nil {
		t.Fatal(err)
	}
	target := connectors.Target{Reference: issued.Reference, Secret: issued.Secret}
	if vitality, _, err := c.Probe(t.Context(), target); err != nil || vitality != connectors.Alive {
		t.Errorf("%s, %v", vitality, err)
	}
	for range 2 {
		if err := c.Remove(t.Context(), "d1"); err != nil {
			t.Error(err)
		}
	}
	if vitality, _, err := c.Probe(t.Context(), target); err != nil || vitality != connectors.Dead {
		t.Errorf("after its removal: %s, %v", vitality, err)
	}
}
