package scim_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/conformance"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// starter records the events whose workflows would be started.
type starter struct {
	mu     sync.Mutex
	events []lifecycle.Event
}

func (s *starter) Start(_ context.Context, e lifecycle.Event) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	return "run", nil
}

// kinds returns the kinds of a principal's events since the last call.
func (s *starter) kinds(principal string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kinds []string
	s.events = slices.DeleteFunc(s.events, func(e lifecycle.Event) bool {
		its := e.Principal.String() == principal
		if its {
			kinds = append(kinds, string(e.Kind))
		}
		return its
	})
	return kinds
}

// provider is a service provider with one tenant.
type provider struct {
	t  testing.TB
	db *database.DB
	// database is for tests that read the tables directly.
	database stacktest.Database
	root     string // the server's address
	url      string // the SCIM base URL
	token    string
	tenant   tenant.Tenant
	tenants  *tenant.Store
	auth     *auth.Store
	starter  *starter
}

func newProvider(t testing.TB, profile tenant.Profile, settings ...string) *provider {
	t.Helper()
	db, d := stacktest.Open(t, settings...)
	p := &provider{t: t, db: db, database: d, tenants: tenant.NewStore(db), starter: &starter{}}
	p.auth = auth.NewStore(db, p.tenants)
	server := httptest.NewServer(p.handler())
	t.Cleanup(server.Close)
	p.root, p.url = server.URL, server.URL+scim.BasePath
	p.tenant, p.token = p.newTenant("acme", profile)
	return p
}

// handler mounts the provider like the product, without a rate limit.
func (p *provider) handler() http.Handler {
	log := slog.New(slog.NewTextHandler(p.t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	keyset, err := seal.GenerateKeyset()
	if err != nil {
		p.t.Fatal(err)
	}
	sealer, err := seal.New(keyset)
	if err != nil {
		p.t.Fatal(err)
	}
	writer := lifecycle.NewWriter(p.db, p.starter, log)
	p.t.Cleanup(writer.Close)
	handler := scim.New(scim.Config{
		Directory: directory.NewStore(p.db), Lifecycle: writer, Transactions: cascade.NewStore(p.db),
		Tenants: p.tenants, Auth: p.auth, Sealer: sealer, Log: log,
	}).Handler()
	r := chi.NewRouter()
	r.Mount(scim.BasePath, handler)
	r.Mount(scim.TenantPath, handler)
	return r
}

// asTenant returns the same provider with a new tenant.
func (p *provider) asTenant(t testing.TB, profile tenant.Profile) *provider {
	t.Helper()
	other := *p
	other.t = t
	other.tenant, other.token = other.newTenant("t-"+uuid.NewString()[:8], profile)
	return &other
}

// newProviderOn returns a second process with the same database and tenant.
func newProviderOn(t testing.TB, p *provider) *provider {
	t.Helper()
	other := *p
	other.tenants = tenant.NewStore(p.db)
	other.auth = auth.NewStore(p.db, other.tenants)
	server := httptest.NewServer(other.handler())
	t.Cleanup(server.Close)
	other.root, other.url = server.URL, server.URL+scim.BasePath
	return &other
}

func (p *provider) newTenant(name string, profile tenant.Profile) (tenant.Tenant, string) {
	p.t.Helper()
	of, err := p.tenants.Create(p.t.Context(), name, profile)
	if err != nil {
		p.t.Fatal(err)
	}
	_, secret, err := p.auth.Issue(p.t.Context(), of.ID, auth.NewToken{Class: auth.ClassSCIM})
	if err != nil {
		p.t.Fatal(err)
	}
	return of, secret
}

// answer is the response to a request.
type answer struct {
	status int
	header http.Header
	raw    []byte
	body   map[string]any
}

func (p *provider) do(method, path, body string, headers ...string) answer {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/scim+json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if a.raw, err = io.ReadAll(resp.Body); err != nil {
		p.t.Fatal(err)
	}
	if len(a.raw) > 0 {
		if err := json.Unmarshal(a.raw, &a.body); err != nil {
			p.t.Fatalf("%s %s answered %d without JSON: %q", method, path, a.status, a.raw)
		}
	}
	return a
}

func (p *provider) create(path, body string) string {
	p.t.Helper()
	a := p.do("POST", path, body)
	if a.status != http.StatusCreated {
		p.t.Fatalf("POST %s answered %d: %s", path, a.status, a.raw)
	}
	return a.body["id"].(string)
}

// patchBody returns a PatchOp message with the operations.
func patchBody(operations string) string {
	return `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[` + operations + `]}`
}

func (p *provider) wantJSON(got map[string]any, want string) {
	p.t.Helper()
	if err := conformance.ContainsJSON(got, want); err != nil {
		p.t.Errorf("%v", err)
	}
}

// restricted reports whether the principal has a restriction.
func (p *provider) restricted(principal string) bool {
	p.t.Helper()
	var restricted bool
	err := p.db.InTenant(p.t.Context(), p.tenant.ID, func(tx pgx.Tx) error {
		return tx.QueryRow(p.t.Context(), `select exists (select 1 from restrictions where principal_id = $1)`, principal).Scan(&restricted)
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return restricted
}

// row reads one row as the superuser.
func (p *provider) row(sql string, args ...any) pgx.Row {
	p.t.Helper()
	return p.connect().QueryRow(p.t.Context(), sql, args...)
}

// connect returns a connection as the superuser, which is closed when the test ends.
func (p *provider) connect() *pgx.Conn {
	p.t.Helper()
	conn, err := pgx.Connect(p.t.Context(), p.database.OwnerURL)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// atOnce sends requests in parallel and counts their statuses.
func (p *provider) atOnce(n int, send func(i int) int) map[int]int {
	var mu sync.Mutex
	var all sync.WaitGroup
	statuses := make(map[int]int)
	for i := range n {
		all.Go(func() {
			status := send(i)
			mu.Lock()
			defer mu.Unlock()
			statuses[status]++
		})
	}
	all.Wait()
	return statuses
}

// status sends a request and returns its status, or 0 on an error. It may be called from any
// goroutine.
func (p *provider) status(method, path, body string) int {
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/scim+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
