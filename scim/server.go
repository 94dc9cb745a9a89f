// Package scim implements a SCIM 2.0 service provider (RFC 7642 to 7644). All resource types
// share one generic implementation from request to commit, which is driven by schemas.
package scim

import (
	"context"
	"log/slog"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cache"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim/schema"
)

const strangersPerSecond = 50

const (
	// BasePath is the path of the server; the bearer token identifies the tenant.
	BasePath = "/scim/v2"
	// TenantPath is the path of the server that also names the tenant.
	TenantPath = "/t/{tenant}" + BasePath
)

// Config is the configuration of a [Server].
type Config struct {
	Directory    *directory.Store
	Lifecycle    *lifecycle.Writer
	Transactions *cascade.Store
	Tenants      *tenant.Store
	Auth         *auth.Store
	Sealer       *seal.Sealer
	// PublicURL is the external URL of the installation (https://leaver.example.com). If
	// empty, the scheme and host of each request are used.
	PublicURL string
	// RequestsPerSecond is the rate limit of a tenant without one of its own; 0 means no
	// limit.
	RequestsPerSecond int
	Log               *slog.Logger
}

// Server handles SCIM requests.
type Server struct {
	Config
	limits limits
	// strangers limits all requests for public discovery without a token.
	strangers *rate.Limiter
	schemas   *cache.Cache[schemaKey, []*schema.ResourceType]
	// large limits the bodies over maxBody that are in memory at a time.
	large *bodies
	// resources serves the routes without authentication, for the operations of a bulk
	// request.
	resources http.Handler
}

// New returns a server.
func New(c Config) *Server {
	s := &Server{
		Config: c, limits: newLimits(), strangers: rate.NewLimiter(strangersPerSecond, strangersPerSecond),
		schemas: cache.New[schemaKey, []*schema.ResourceType](maxSchemaCache, 0), large: newBodies(),
	}
	s.resources = s.routes(func(next http.Handler) http.Handler { return next })
	return s
}

// Handler returns the routes, to be mounted at [BasePath] and [TenantPath].
func (s *Server) Handler() http.Handler {
	return s.routes(func(next http.Handler) http.Handler {
		return s.negotiate(s.authenticate(next))
	})
}

// routes mounts every endpoint behind guard. The guard wraps all routes, including unknown
// ones, and does not inspect the path, so no encoding of a path bypasses it.
func (s *Server) routes(guard func(http.Handler) http.Handler) http.Handler {
	r := chi.NewRouter()
	r.Use(cleanPath, middleware.GetHead)
	r.NotFound(guard(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.writeError(w, req, failure(http.StatusNotFound, "no such endpoint"))
	})).ServeHTTP)
	r.MethodNotAllowed(guard(s.methodNotAllowed(r)).ServeHTTP)
	r.Group(func(r chi.Router) {
		r.Use(guard)
		for _, rt := range schema.ResourceTypes(nil) {
			h := resourceHandler{Server: s, name: rt.Name}
			r.Get(rt.Endpoint, h.list)
			r.Post(rt.Endpoint+"/.search", h.search)
			r.Get(rt.Endpoint+"/{id}", h.get)
			changes := r.With(auth.ForChange)
			changes.Post(rt.Endpoint, h.create)
			changes.Put(rt.Endpoint+"/{id}", h.replace)
			changes.Patch(rt.Endpoint+"/{id}", h.patch)
			changes.Delete(rt.Endpoint+"/{id}", h.delete)
		}
		all := resourceHandler{Server: s}
		r.Get("/", all.list)
		r.Post("/.search", all.search)
		r.Post("/Bulk", s.bulk)
		r.Get("/Transactions/*", s.transaction)
		for _, method := range []string{
			http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		} {
			r.Method(method, "/Me", http.HandlerFunc(s.me))
		}
	})
	r.Group(func(r chi.Router) {
		r.Use(s.discoverable(guard))
		r.Get("/ServiceProviderConfig", s.serviceProviderConfig)
		r.Get("/ResourceTypes", s.resourceTypes)
		r.Get("/ResourceTypes/{name}", s.resourceType)
		r.Get("/Schemas", s.listSchemas)
		r.Get("/Schemas/{urn}", s.schema)
	})
	return r
}

// cleanPath routes a path without the slashes that identity providers append or double.
func cleanPath(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := chi.RouteContext(r.Context())
		path := route.RoutePath
		if path == "" {
			if path = r.URL.RawPath; path == "" {
				path = r.URL.Path
			}
		}
		for strings.Contains(path, "//") {
			path = strings.ReplaceAll(path, "//", "/")
		}
		if path = strings.TrimSuffix(path, "/"); path == "" {
			path = "/"
		}
		route.RoutePath = path
		next.ServeHTTP(w, r)
	})
}

// methodNotAllowed responds 405 with the methods that the endpoint supports (RFC 9110
// section 15.5.6), without reading the body.
func (s *Server) methodNotAllowed(routes chi.Routes) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httpjson.Allow(w, r, routes)
		s.writeError(w, r, failure(http.StatusMethodNotAllowed, "the endpoint does not support "+r.Method))
	})
}

// session is the authenticated caller of a request and the base URL of its responses.
type session struct {
	auth.Caller
	base string // the URL that locations start with
}

type sessionKey struct{}

func sessionOf(r *http.Request) session {
	s, _ := r.Context().Value(sessionKey{}).(session)
	return s
}

func withSession(r *http.Request, s session) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), sessionKey{}, s))
}

// schemaKey names a version of a tenant's schemas.
type schemaKey struct {
	tenant  uuid.UUID
	version int64
	variant schema.Variant
}

// maxSchemaCache bounds the tenants whose resource types are cached.
const maxSchemaCache = 1000

// types returns the resource types with the extensions of the caller's tenant.
func (s *Server) types(r *http.Request) ([]*schema.ResourceType, error) {
	of := sessionOf(r).Tenant
	variant := schema.Variant{CanonicalTypes: of.Profile == tenant.ProfileInterop, NoPassword: of.IPSIE}
	return s.schemas.Get(
		r.Context(),
		schemaKey{of.ID, of.SchemaVersion, variant},
		func(ctx context.Context) ([]*schema.ResourceType, error) {
			var extensions []*schema.Extension
			if of.SchemaVersion > 0 {
				declared, err := s.Tenants.Schemas(ctx, of.ID)
				if err != nil {
					return nil, err
				}
				if extensions, err = parseDeclared(declared); err != nil {
					return nil, err
				}
			}
			return variant.ResourceTypes(extensions), nil
		},
	)
}
