package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/leaverhq/leaver/internal/app"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// switchable is a TCP proxy that can be switched off, to simulate an outage of its target.
type switchable struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	up       bool
	open     map[net.Conn]bool
}

func newSwitchable(t testing.TB, target string) *switchable {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &switchable{listener: listener, target: target, up: true, open: make(map[net.Conn]bool)}
	t.Cleanup(func() { _ = listener.Close(); s.set(false) })
	go s.accept()
	return s
}

func (s *switchable) address() string { return s.listener.Addr().String() }

func (s *switchable) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		behind, err := net.Dial("tcp", s.target)
		if err != nil || !s.keep(conn, behind) {
			_ = conn.Close()
			if err == nil {
				_ = behind.Close()
			}
			continue
		}
		for from, to := range map[net.Conn]net.Conn{conn: behind, behind: conn} {
			go func() {
				_, _ = io.Copy(to, from)
				_ = to.Close()
			}()
		}
	}
}

func (s *switchable) keep(conns ...net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range conns {
		s.open[c] = s.up
	}
	return s.up
}

// set switches the proxy on or off. Off closes all connections.
func (s *switchable) set(up bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = up
	if !up {
		for c := range s.open {
			_ = c.Close()
		}
		clear(s.open)
	}
}

func TestCascade_RunsOnceAfterTemporalOutage(t *testing.T) {
	long(t)
	p := newPlatform(t)
	var temporal *switchable
	i := install(t, withConnectors(p.connector()), func(c *config.Config) {
		temporal = newSwitchable(t, c.Temporal.Address)
		c.Temporal.Address = temporal.address()
	})
	ada := i.createUser("ada@example.com")
	id := i.hold(p, ada, "", "a")
	temporal.set(false)
	i.deactivate(ada) // answers 200 although Temporal is down
	if status, body := i.call("GET", "/readyz", "", ""); status != http.StatusOK || body["status"] != "degraded" {
		t.Errorf("ready while Temporal is down: %d %v; want 200 degraded", status, body)
	}
	body := `{"principalId":"` + ada + `","kind":"api_key","connector":"platform","reference":"late"}`
	if status, _ := i.call("POST", "/v1/credentials", i.platform, body); status != http.StatusConflict {
		t.Errorf("a registration while Temporal is down answered %d, want 409", status)
	}
	if c := i.cascades(ada); len(c) != 1 || c[0].Outcome != "pending" {
		t.Errorf("cascades while Temporal is down: %+v; want one, pending", c)
	}
	temporal.set(true)
	c := i.closed(ada)
	if c.Outcome != "completed" || i.state(id) != "verified" {
		t.Errorf("cascade %s, credential %s; want completed and verified", c.Outcome, i.state(id))
	}
	if runs := i.runs(c.WorkflowID); runs != 1 {
		t.Errorf("%d runs, want exactly 1", runs)
	}
	if n := p.called("credential.revoke", "a"); n != 1 {
		t.Errorf("revoked %d times, want 1", n)
	}
}

// runs returns the number of a workflow's closed executions, once visibility has any.
func (i *installation) runs(workflowID string) int {
	i.t.Helper()
	count := 0
	stacktest.Eventually(i.t, 20*time.Second, "the run in visibility", func() bool {
		list, err := i.app.Temporal.ListWorkflow(i.t.Context(), &workflowservice.ListWorkflowExecutionsRequest{
			Query: fmt.Sprintf("WorkflowId = '%s' and ExecutionStatus != 'Running'", workflowID),
		})
		count = len(list.GetExecutions())
		return err == nil && count > 0
	})
	return count
}

func TestStart_OfStartedEventStartsNoSecondRun(t *testing.T) {
	i := install(t)
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	c := i.closed(ada)
	event, err := i.app.Cascades().Reopen(t.Context(), i.tenant.ID, i.createFailed(c.ID), "test", "test")
	if err != nil {
		t.Fatal(err)
	}
	run, err := i.app.Starter().Start(t.Context(), event)
	if err != nil || run != *c.RunID {
		t.Errorf("started again: run %s, %v; want the first run %s", run, err, *c.RunID)
	}
	if runs := i.runs(c.WorkflowID); runs != 1 {
		t.Errorf("%d runs, want exactly 1", runs)
	}
}

// createFailed sets the outcome of a closed cascade to failed, so that Reopen returns its event.
func (i *installation) createFailed(id uuid.UUID) uuid.UUID {
	i.t.Helper()
	err := i.app.DB.InTenant(i.t.Context(), i.tenant.ID, func(tx pgx.Tx) error {
		_, err := tx.Exec(i.t.Context(),
			`update lifecycle_events set outcome = 'failed' where tenant_id = $1 and id = $2`, i.tenant.ID, id)
		return err
	})
	if err != nil {
		i.t.Fatal(err)
	}
	return id
}

// leaverBinary builds cmd/leaver once for the tests that kill it.
var leaverBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "leaver-binary-")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "leaver")
	out, err := exec.Command("go", "build", "-o", program, "github.com/leaverhq/leaver/cmd/leaver").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build leaver: %w: %s", err, out)
	}
	return program, nil
})

// process starts `leaver` with the installation's configuration.
func (i *installation) process(args []string, connectors string, environment ...string) *exec.Cmd {
	i.t.Helper()
	program, err := leaverBinary()
	if err != nil {
		i.t.Fatal(err)
	}
	return i.processOf(program, args, connectors, environment...)
}

// processOf is process with another build of leaver.
func (i *installation) processOf(program string, args []string, connectors string, environment ...string) *exec.Cmd {
	i.t.Helper()
	file := filepath.Join(i.t.TempDir(), "leaver.yaml")
	if err := os.WriteFile(file, []byte(connectors), 0o600); err != nil {
		i.t.Fatal(err)
	}
	cmd := exec.Command(program, append(args, "--config", file)...)
	cmd.Env = append(os.Environ(),
		"LEAVER_DATABASE_URL="+i.cfg.Database.URL, "LEAVER_SEAL_KEYSET="+i.cfg.Seal.Keyset,
		"LEAVER_TEMPORAL_ADDRESS="+i.cfg.Temporal.Address, "LEAVER_TEMPORAL_NAMESPACE="+i.cfg.Temporal.Namespace)
	cmd.Env = append(cmd.Env, environment...)
	cmd.Stderr = i.logs
	if err := cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { _ = cmd.Process.Kill(); _, _ = cmd.Process.Wait() })
	return cmd
}

// killOnce kills a process with SIGKILL once reached is closed.
func (i *installation) killOnce(reached <-chan struct{}, process *exec.Cmd) {
	i.t.Helper()
	select {
	case <-reached:
	case <-time.After(30 * time.Second):
		i.t.Fatalf("the process did not reach the kill point within 30 s; logs:\n%s", i.logs)
	}
	i.kill(process)
}

func (i *installation) kill(process *exec.Cmd) {
	i.t.Helper()
	if err := process.Process.Signal(syscall.SIGKILL); err != nil {
		i.t.Fatal(err)
	}
	_, _ = process.Process.Wait()
}

func TestWorker_KilledMidCascadeLosesNothing(t *testing.T) {
	long(t)
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	var ids []string
	for n := range 20 {
		ids = append(ids, i.hold(p, ada, "", fmt.Sprintf("key-%d", n)))
	}
	// The first revocation takes effect downstream, but its response never arrives.
	reached, over := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(over) })
	var once sync.Once
	p.interceptWith(func(_ http.ResponseWriter, kind, reference string) bool {
		if kind == "credential.revoke" && reference == "key-0" {
			first := false
			once.Do(func() { first = true })
			if first {
				p.mu.Lock()
				p.alive[reference] = false
				p.mu.Unlock()
				close(reached)
				<-over // the response never arrives
			}
		}
		return false
	})
	worker := i.process([]string{"worker"}, p.connector())
	i.deactivate(ada)
	i.killOnce(reached, worker)
	i.process([]string{"worker"}, p.connector())
	if c := i.closed(ada); c.Outcome != "completed" || c.Verified != len(ids) {
		t.Errorf("cascade %+v; want completed with %d verified", c, len(ids))
	}
	for n, id := range ids {
		if s := i.state(id); s != "verified" || p.isAlive(fmt.Sprintf("key-%d", n)) {
			t.Errorf("key-%d is %s, alive %t; want verified and dead", n, s, p.isAlive(fmt.Sprintf("key-%d", n)))
		}
	}
}

func TestAPI_KilledBetweenCommitAndStartLosesNothing(t *testing.T) {
	long(t)
	i := installAPI(t)
	ada := i.createUser("ada@example.com")
	// This Temporal accepts connections and never responds. The API commits, and
	// is killed while it waits to start the workflow.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	_ = free.Close()
	api := i.process([]string{"serve"}, "connectors: []\n",
		"LEAVER_TEMPORAL_ADDRESS="+silent.Addr().String(), "LEAVER_SERVE_LISTEN="+address)
	stacktest.Eventually(t, 20*time.Second, "the API process", func() bool {
		resp, err := http.Get("http://" + address + "/livez")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		other := *i
		other.url = "http://" + address
		req, _ := http.NewRequestWithContext(ctx, http.MethodDelete, other.url+"/scim/v2/Users/"+ada, http.NoBody)
		req.Header.Set("Authorization", "Bearer "+i.scim)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	stacktest.Eventually(t, 20*time.Second, "the commit", func() bool { return len(i.cascades(ada)) == 1 })
	i.kill(api)
	i.work()
	c := i.closed(ada)
	if c.Outcome != "completed" || i.runs(c.WorkflowID) != 1 {
		t.Errorf("cascade %+v; want completed by one run", c)
	}
}

func TestAPI_Returns503WithoutPostgreSQL(t *testing.T) {
	cfg := newConfig(t, func(c *config.Config) {
		c.Database.URL = "postgres://leaver@127.0.0.1:1/none?connect_timeout=1"
	})
	logs := &syncBuffer{}
	a, err := app.New(t.Context(), cfg, newLogger(logs))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, path := range []string{
		"/scim/v2/Users", "/v1/credentials", "/v1/tenants", "/v1/principals/4a3ec2c4-a334-4ead-a709-306d3154f984/access", "/readyz",
	} {
		recorder := serve(a, "GET", path, "leaver_scim_x")
		if recorder.Code != http.StatusServiceUnavailable {
			t.Errorf("%s answered %d, want 503", path, recorder.Code)
		}
		if path != "/readyz" && recorder.Header().Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
		if !json.Valid(recorder.Body.Bytes()) {
			t.Errorf("%s: %q is not JSON", path, recorder.Body)
		}
	}
	for path, body := range map[string]string{
		"/access/v1/evaluation": `{"subject":{"type":"user","id":"ada"},` +
			`"action":{"name":"read"},"resource":{"type":"t","id":"1"}}`,
		"/access/v1/evaluations": `{"evaluations":[{"subject":{"type":"user","id":"ada"},` +
			`"action":{"name":"read"},"resource":{"type":"t","id":"1"}}]}`,
		"/access/v1/search/resource": `{"subject":{"type":"user","id":"ada"},"action":{"name":"read"},"resource":{"type":"t"}}`,
		"/access/v1/search/subject":  `{"subject":{"type":"user"},"action":{"name":"read"},"resource":{"type":"t","id":"1"}}`,
		"/access/v1/ext-authz/x":     ``,
		"/access/v1/introspect":      `{"token":"x"}`,
	} {
		recorder := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer leaver_platform_x")
		req.Header.Set("X-Leaver-Token", "leaver_platform_x") // of gateways
		req.Header.Set("Content-Type", "application/json")
		a.Handler().ServeHTTP(recorder, req)
		if recorder.Code != http.StatusServiceUnavailable || strings.Contains(recorder.Body.String(), "decision") {
			t.Errorf("%s answered %d %s; want 503 and no decision", path, recorder.Code, recorder.Body)
		}
	}
	if recorder := serve(a, "GET", "/livez", ""); recorder.Code != http.StatusOK {
		t.Errorf("/livez answered %d, want 200", recorder.Code)
	}
}
