// Package api implements leaver's HTTP API under /v1: platforms register credentials and scheduled
// runs; operators manage tenants and tokens, and list, re-run and cancel cascades.
package api

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/authzen"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/entitlement"
	"github.com/leaverhq/leaver/internal/erasure"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/internal/ssf"
	"github.com/leaverhq/leaver/internal/tenant"
)

// BasePath is the mount path of [Server.Handler].
const BasePath = "/v1"

//go:embed openapi.yaml
var openapi []byte

// Cascades controls the workflows of cascades.
type Cascades interface {
	Rerun(ctx context.Context, e lifecycle.Event) (runID string, err error)
	Retry(ctx context.Context, workflowID string, item uuid.UUID, by, reason string) (int, error)
	Waive(ctx context.Context, workflowID string, item uuid.UUID, by, reason string, until time.Time) error
	Approve(ctx context.Context, workflowID string) error
	Cancel(ctx context.Context, workflowID string) error
	// Pending returns the pending activities of a workflow.
	Pending(ctx context.Context, workflowID string) ([]cascade.Pending, error)
}

// Connectors is the set of configured connectors.
type Connectors interface {
	// Accepts returns the canonical spelling of an item's reference, or an error if the item cannot
	// be registered at a connector.
	Accepts(tenant, connector string, r connectors.Registration) (reference string, err error)
	// Prove returns an error if there is no proof that an item belongs to the tenant.
	Prove(ctx context.Context, tenant uuid.UUID, name string, n credential.New) error
	// Probe returns the vitality of an item at its downstream: alive, dead or unknown.
	Probe(ctx context.Context, tenant uuid.UUID, n credential.New) (vitality, detail string, err error)
	// Discover lists the credentials that a tenant's connectors attribute to principals. failed has
	// the error of each connector that could not be queried, by name.
	Discover(ctx context.Context, tenant string, principals []connectors.Principal) (
		found []credential.Unregistered, failed map[string]error)
	// Verifies reports whether a connector has a probe for an item.
	Verifies(connector string, kind connectors.Kind, hasSecret bool) bool
	// Mints reports whether the connector's credentials issue others.
	Mints(connector string) bool
	Describe() []registry.Description
}

// Server implements the API.
type Server struct {
	Tenants     *tenant.Store
	Auth        *auth.Store
	Credentials *credential.Store
	Cascades    *cascade.Store
	Evidence    *evidence.Store
	Connectors  Connectors
	Runner      Cascades
	Directory   *directory.Store
	Lifecycle   *lifecycle.Writer
	Threshold   *cascade.Threshold
	Pauses      *registry.Pauses
	Decisions   *authzen.Store
	Signals     *ssf.Store
	Audit       *audit.Store
	Chain       *evidence.Chain
	Erasure     *erasure.Store
	Archive     *evidence.Archive
	Health      *health.Store
	// PublicURL is the base URL for clients. If it is empty, the request's host is used.
	PublicURL string
	// Entitlements evaluates the entitlements of principals.
	Entitlements *entitlement.Store
	// Slow acquires a slot of a tenant's limit on searches, imports and reports.
	Slow func(ctx context.Context, tenant uuid.UUID) (slow context.Context, release func(), err error)
	// CheckSchema returns the schema to store, or an error if a tenant cannot declare it.
	CheckSchema func(declared tenant.Schema, existing []tenant.Schema) (tenant.Schema, error)
	Log         *slog.Logger

	imports lineRates
}

// Handler returns the routes, to be mounted at [BasePath]. Each group of routes requires a token of
// certain classes.
func (s *Server) Handler() http.Handler {
	s.imports = newLineRates()
	r := chi.NewRouter()
	httpjson.RefuseUnknown(r, s.Log)
	r.Get("/openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(openapi)
	})
	r.Post("/sessions", s.openSession)
	r.Group(func(r chi.Router) {
		r.Use(s.authenticate(auth.ClassPlatform))
		credentials := items{Server: s, path: "/credentials", kinds: connectors.CredentialKinds()}
		runs := items{Server: s, path: "/scheduled-runs", kinds: []connectors.Kind{connectors.ScheduledRun}}
		for _, h := range []items{credentials, runs} {
			r.Post(h.path, h.register)
			r.With(s.slowly).Get(h.path, h.list)
			r.Get(h.path+"/{id}", h.get)
			r.Delete(h.path+"/{id}", h.release)
		}
		r.Post("/import", s.importItems)
	})
	r.Group(func(r chi.Router) {
		r.Use(s.authenticate(auth.ClassPlatform, auth.ClassGateway))
		r.Get("/principals", s.resolvePrincipal)
		r.Get("/principals/{id}/access", s.accessStatus)
	})
	s.serveInstallation(s.roles(r))
	tenants := s.roles(r, s.nameTenant)
	tenants.view.Get("/tenants/{tenant}", s.getTenant)
	tenants.configure.Patch("/tenants/{tenant}", s.configureTenant)
	r.Route("/tenants/{tenant}/", func(r chi.Router) {
		httpjson.RefuseUnknown(r, s.Log)
		s.serveTenant(s.roles(r, s.nameTenant))
	})
	return r
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	httpjson.Fail(w, r, s.Log, err)
}

type tenantKey struct{}

func caller(r *http.Request) auth.Caller { return auth.CallerOf(r) }

// tenantOf returns the tenant that the token or, for operators, the path names.
func tenantOf(r *http.Request) tenant.Tenant {
	if t, ok := r.Context().Value(tenantKey{}).(tenant.Tenant); ok {
		return t
	}
	return caller(r).Tenant
}

func (s *Server) authenticate(classes ...auth.Class) func(http.Handler) http.Handler {
	return s.Auth.Require(s.Log, classes...)
}

// logActs logs the actor and route of each successful request of an operator or approver, except
// GET requests. It never logs the body.
func (s *Server) logActs(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		next.ServeHTTP(seen, r)
		if r.Method != http.MethodGet && seen.Status() < http.StatusMultipleChoices {
			route := chi.RouteContext(r.Context())
			s.Log.InfoContext(r.Context(), "handled operator request", "actor", caller(r).Actor(), "method", r.Method,
				"route", route.RoutePattern(), "tenant", route.URLParam("tenant"), "id", route.URLParam("id"))
		}
	})
}

func (s *Server) nameTenant(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := chi.URLParam(r, "tenant")
		var t tenant.Tenant
		id, err := uuid.Parse(name)
		if err == nil { // workflows and their hints contain the id
			t, err = s.Tenants.ByID(r.Context(), id)
		}
		if err != nil {
			t, err = s.Tenants.ByName(r.Context(), name)
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), tenantKey{}, t)))
	})
}

// pathID returns the id in the path. An id that is not a UUID is reported as 404.
func pathID(r *http.Request) (uuid.UUID, error) {
	text := chi.URLParam(r, "id")
	id, err := uuid.Parse(text)
	if err != nil {
		return uuid.Nil, httpjson.Problem{
			Status: http.StatusNotFound, Detail: fmt.Sprintf("no such resource: its ID is a UUID, got %.80q", text),
		}
	}
	return id, nil
}
