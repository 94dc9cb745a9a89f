package redis_test

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	goredis "github.com/redis/go-redis/v9"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/activities/connectors/redis"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// server is a Redis server that the test started.
type server struct {
	address string
	admin   *goredis.Client
	n       int
}

// start starts a server with an ACL file and an administrator. It skips the test if Redis is not installed.
func start(t *testing.T) *server {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	dir := t.TempDir()
	acl := filepath.Join(dir, "users.acl")
	if err := os.WriteFile(acl, []byte("user default off\nuser leaver on >admin ~* &* +@all\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	_, port, _ := strings.Cut(address, ":")
	process := exec.CommandContext(t.Context(), program, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", dir, "--aclfile", acl)
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	s := &server{address: address, admin: goredis.NewClient(&goredis.Options{Addr: address, Username: "leaver", Password: "admin", Protocol: 2})}
	t.Cleanup(func() { _ = s.admin.Close() })
	stacktest.Eventually(t, 10*time.Second, "the server's start", func() bool {
		return s.admin.Ping(t.Context()).Err() == nil
	})
	return s
}

func (s *server) run(t *testing.T, command ...any) {
	t.Helper()
	if err := s.admin.Do(t.Context(), command...).Err(); err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, address string) *redis.Connector {
	return connectAs(t, "leaver:admin", address)
}

func connectAs(t *testing.T, login, address string) *redis.Connector {
	t.Helper()
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte("redis://"+login+"@"+address), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := redis.New(redis.Config{URL: connectors.SecretRef("file:" + file)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// issue creates a user with a password.
func (s *server) issue(t *testing.T) connectors.Target {
	t.Helper()
	s.n++
	target := connectors.Target{
		Item: uuid.New(), Kind: connectors.ServiceAccount, Reference: fmt.Sprintf("agent-%d", s.n), Secret: connectors.Secret(rand.Text()),
	}
	s.run(t, "ACL", "SETUSER", target.Reference, "on", ">"+target.Secret.Reveal(), "~*", "+@read", "+ping")
	return target
}

// login opens a connection as a user.
func (s *server) login(t *testing.T, user string, secret connectors.Secret) (*goredis.Client, error) {
	t.Helper()
	client := goredis.NewClient(&goredis.Options{
		Addr: s.address, Username: user, Password: secret.Reveal(), Protocol: 2, MaxRetries: -1, PoolSize: 1,
	})
	t.Cleanup(func() { _ = client.Close() })
	return client, client.Ping(t.Context()).Err()
}

func (s *server) works(t *testing.T, target connectors.Target) bool {
	t.Helper()
	_, err := s.login(t, target.Reference, target.Secret)
	return err == nil
}

func TestRedis_Contract(t *testing.T) {
	s := start(t)
	contract.Run(t, contract.Suite{
		Connector: connect(t, s.address), Issue: s.issue, Works: s.works, Verifies: true,
		Down: connect(t, contract.Closed(t)), Hanging: connect(t, contract.Silent(t)),
	})
}

func TestRevoke_ClosesOpenConnectionsAndSurvivesARestart(t *testing.T) {
	s := start(t)
	c, target := connect(t, s.address), s.issue(t)
	open, err := s.login(t, target.Reference, target.Secret)
	if err != nil {
		t.Fatal(err)
	}
	conn := open.Conn()
	defer conn.Close()
	if err := conn.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	answer, err := c.Revoke(t.Context(), target)
	if err != nil || !strings.Contains(answer.Detail, "connections closed") || strings.Contains(answer.Detail, "restart") {
		t.Errorf("%+v, %v", answer, err)
	}
	if conn.Ping(t.Context()).Err() == nil {
		t.Error("the open connection works")
	}
	s.run(t, "ACL", "LOAD") // as a restart does
	s.run(t, "ACL", "SETUSER", target.Reference, "on")
	if s.works(t, target) {
		t.Error("the old password works once the user is enabled again")
	}
}

func TestBlock_LeavesThePassword(t *testing.T) {
	s := start(t)
	c, target := connect(t, s.address), s.issue(t)
	if _, err := c.Block(t.Context(), target); err != nil || s.works(t, target) {
		t.Fatalf("blocked: %v", err)
	}
	s.run(t, "ACL", "SETUSER", target.Reference, "on")
	if !s.works(t, target) {
		t.Error("the password is lost")
	}
}

// TestRotate_HoldersKeepAccess rotates a password: both work until the old one is retired.
func TestRotate_HoldersKeepAccess(t *testing.T) {
	s := start(t)
	c, target := connect(t, s.address), s.issue(t)
	target.Rotation, target.NewReference, target.NewSecret = uuid.New(), target.Reference, connectors.Secret(rand.Text())
	renewed := target
	renewed.Secret = target.NewSecret
	for range 2 { // an attempt may be repeated
		if answer, err := c.Renew(t.Context(), target); err != nil || answer.Outcome != connectors.Done {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
	open, err := s.login(t, target.Reference, target.Secret)
	if err != nil {
		t.Fatal(err)
	}
	if !s.works(t, target) || !s.works(t, renewed) {
		t.Error("one of the passwords does not work while the rotation is in progress")
	}
	// An earlier attempt removed the password, and could not close the connections.
	s.run(t, "ACL", "SETUSER", target.Reference, "<"+target.Secret.Reveal())
	for range 2 {
		if answer, err := c.Retire(t.Context(), target); err != nil || answer.Outcome != connectors.Done {
			t.Fatalf("%+v, %v", answer, err)
		}
	}
	if open.Conn().Ping(t.Context()).Err() == nil {
		t.Error("a connection of the old password works")
	}
	if s.works(t, target) || !s.works(t, renewed) {
		t.Error("the old password works, or the new one does not")
	}
	if vitality, detail, err := c.Probe(t.Context(), target); err != nil || vitality != connectors.Dead {
		t.Errorf("the old password is %s (%s), %v", vitality, detail, err)
	}
}

func TestRedis_EndsNeitherTheDefaultNorItsOwnUser(t *testing.T) {
	s := start(t)
	c := connect(t, s.address)
	for _, user := range []string{"default", "leaver", "a b", "a\nb", "", "a=b"} {
		if _, err := c.Accepts(connectors.Registration{Kind: connectors.ServiceAccount, Reference: user}); err == nil {
			t.Errorf("%q was accepted", user)
		}
		if _, err := c.Revoke(t.Context(), connectors.Target{Reference: user}); !connectors.IsPermanent(err) {
			t.Errorf("%q: %v", user, err)
		}
	}
}

func TestRedis_WithoutRightsIsPermanent(t *testing.T) {
	s := start(t)
	target := s.issue(t)
	s.run(t, "ACL", "SETUSER", "leaver", "-acl")
	c := connect(t, s.address)
	if _, err := c.Revoke(t.Context(), target); !connectors.IsPermanent(err) || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("%v", err)
	}
	if err := c.Check(t.Context()); !connectors.IsPermanent(err) {
		t.Errorf("the check: %v", err)
	}
	if err := connectAs(t, "leaver:wrong", s.address).Check(t.Context()); !connectors.IsPermanent(err) {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestDrill_IssuesAUserThatIsRemoved(t *testing.T) {
	s := start(t)
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
