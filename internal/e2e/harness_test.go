package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	commonpb "go.temporal.io/api/common/v1"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/app"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/internal/tenant"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// long skips a test that takes seconds if -short is set.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes seconds")
	}
}

// installation is a leaver for one test, with API, relay and workers in process,
// and real PostgreSQL and Temporal servers.
type installation struct {
	t      testing.TB
	cfg    *config.Config
	app    *app.App
	url    string
	logs   *syncBuffer
	tenant tenant.Tenant
	// Tokens of the tenant, and an operator token.
	scim, platform, operator string
	stopWork                 func()
}

type setting func(*config.Config)

// withConnectors sets the connectors from the YAML of a leaver.yaml.
func withConnectors(yaml string) setting {
	return func(c *config.Config) {
		parsed, err := config.Parse("leaver.yaml", []byte(yaml), nil)
		if err != nil {
			panic(err)
		}
		c.Connectors, c.ConnectorDefinitions = parsed.Connectors, parsed.ConnectorDefinitions
	}
}

func newConfig(t testing.TB, settings ...setting) *config.Config {
	t.Helper()
	keyset, err := seal.GenerateKeyset()
	if err != nil {
		t.Fatal(err)
	}
	database := stacktest.NewDatabase(t)
	cfg := &config.Config{
		Database: config.Database{URL: database.AppURL, MigrateURL: database.OwnerURL},
		Temporal: stacktest.Temporal(t),
		Seal:     config.Seal{Keyset: base64.StdEncoding.EncodeToString(keyset)},
		Policy: config.Policy{
			InitialInterval: 100 * time.Millisecond, MaximumInterval: 500 * time.Millisecond, Deadline: time.Minute,
		},
	}
	for _, set := range settings {
		set(cfg)
	}
	return cfg
}

// install starts an installation with workers.
func install(t testing.TB, settings ...setting) *installation {
	t.Helper()
	i := installAPI(t, settings...)
	i.work()
	return i
}

// installAPI starts an installation without workers.
func installAPI(t testing.TB, settings ...setting) *installation {
	t.Helper()
	i := &installation{t: t, cfg: newConfig(t, settings...), logs: &syncBuffer{}}
	var err error
	if i.app, err = app.New(context.Background(), i.cfg, slog.New(slog.NewJSONHandler(i.logs, nil))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.app.Close)
	server := httptest.NewServer(i.app.Handler())
	t.Cleanup(server.Close)
	i.url = server.URL
	i.tenant, i.scim, i.platform = i.newTenant("acme")
	i.operator = i.token(uuid.Nil, auth.ClassOperator)
	relay, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { i.app.Relay().Run(relay) })
	t.Cleanup(func() { stop(); running.Wait() })
	return i
}

// another starts another API process of the same installation, with empty caches.
func (i *installation) another() *installation {
	i.t.Helper()
	other := *i
	var err error
	if other.app, err = app.New(context.Background(), i.cfg, slog.New(slog.NewJSONHandler(i.logs, nil))); err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(other.app.Close)
	server := httptest.NewServer(other.app.Handler())
	i.t.Cleanup(server.Close)
	other.url = server.URL
	return &other
}

func (i *installation) work() {
	i.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = i.app.Work(ctx); close(done) }()
	i.stopWork = sync.OnceFunc(func() { cancel(); <-done })
	i.t.Cleanup(i.stopWork)
}

// connect opens a connection as the schema's owner, which is closed when the test ends.
func (i *installation) connect() *pgx.Conn {
	i.t.Helper()
	conn, err := pgx.Connect(i.t.Context(), i.cfg.Database.MigrateURL)
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (i *installation) newTenant(name string) (of tenant.Tenant, scim, platform string) {
	i.t.Helper()
	of, err := i.app.Tenants().Create(i.t.Context(), name, tenant.ProfileDefault)
	if err != nil {
		i.t.Fatal(err)
	}
	return of, i.token(of.ID, auth.ClassSCIM), i.token(of.ID, auth.ClassPlatform)
}

func (i *installation) token(of uuid.UUID, class auth.Class) string {
	i.t.Helper()
	_, secret, err := i.app.Auth().Issue(i.t.Context(), of, auth.NewToken{Class: class})
	if err != nil {
		i.t.Fatal(err)
	}
	return secret
}

// call sends a request and decodes its JSON response.
func (i *installation) call(method, path, token, body string) (int, map[string]any) {
	i.t.Helper()
	status, raw := i.raw(method, path, token, body)
	var answer map[string]any
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &answer); err != nil {
			i.t.Fatalf("%s %s answered %d with %q", method, path, status, raw)
		}
	}
	return status, answer
}

func (i *installation) raw(method, path, token, body string) (int, []byte) {
	i.t.Helper()
	req, err := http.NewRequestWithContext(i.t.Context(), method, i.url+path, bytes.NewBufferString(body))
	if err != nil {
		i.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		i.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return resp.StatusCode, raw
}

// must is like call, but fails the test unless the status is 2xx.
func (i *installation) must(method, path, token, body string) map[string]any {
	i.t.Helper()
	status, answer := i.call(method, path, token, body)
	if status < 200 || status > 299 {
		i.t.Fatalf("%s %s answered %d: %v", method, path, status, answer)
	}
	return answer
}

// createUser provisions a user and returns the id.
func (i *installation) createUser(name string) string {
	i.t.Helper()
	return i.must("POST", "/scim/v2/Users", i.scim, fmt.Sprintf(`{"userName":%q,"active":true}`, name))["id"].(string)
}

// createAgent provisions an agent with one owner.
func (i *installation) createAgent(name, owner string) string {
	i.t.Helper()
	return i.must("POST", "/scim/v2/Agents", i.scim,
		fmt.Sprintf(`{"agentUserName":%q,"active":true,"owners":[{"value":%q}]}`, name, owner))["id"].(string)
}

// deactivate deactivates a user as Entra does.
func (i *installation) deactivate(id string) {
	i.t.Helper()
	i.must("PATCH", "/scim/v2/Users/"+id, i.scim,
		`{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],`+
			`"Operations":[{"op":"Replace","path":"active","value":"False"}]}`)
}

// cascades lists a principal's cascades, newest first.
func (i *installation) cascades(principal string) []cascade.Cascade {
	i.t.Helper()
	found, err := i.app.Cascades().List(i.t.Context(), i.tenant.ID,
		cascade.Query{Principal: ptr(uuid.MustParse(principal)), Limit: 100})
	if err != nil {
		i.t.Fatal(err)
	}
	return found
}

// closed waits until the principal's newest cascade has closed, and returns it.
func (i *installation) closed(principal string) cascade.Cascade {
	i.t.Helper()
	var last cascade.Cascade
	stacktest.Eventually(i.t, time.Minute, "the cascade's end", func() bool {
		found := i.cascades(principal)
		if len(found) == 0 {
			return false
		}
		last = found[0]
		return last.ClosedAt != nil
	})
	return last
}

// decode decodes a history's payloads with the installation's key set.
func (i *installation) decode(payloads *commonpb.Payloads, into any) {
	i.t.Helper()
	if err := seal.DataConverter(i.app.Sealer).FromPayloads(payloads, into); err != nil {
		i.t.Fatal(err)
	}
}

// unwilling is a connector that fails to list credentials.
type unwilling struct{ noopConnector }

func (unwilling) Discover(context.Context, []connectors.Principal) ([]connectors.Found, error) {
	return nil, connectors.Permanent("the role lacks the right to list")
}

func ptr[T any](v T) *T { return &v }

// syncBuffer collects logs.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(w, nil)) }

// serve serves one request without a listener.
func serve(a *app.App, method, path, token string) *httptest.ResponseRecorder {
	recorder := httptest.NewRecorder()
	req := httptest.NewRequest(method, path, http.NoBody)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	a.Handler().ServeHTTP(recorder, req)
	return recorder
}
