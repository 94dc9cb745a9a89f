// Package scim is the SCIM 2.0 service provider (RFC 7642 to 7644): one generic
// path from request to commit that every resource type takes, driven by schemas.
package scim

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/tenant"
)

// BasePath is where the server is mounted; the bearer token names the tenant.
const BasePath = "/scim/v2"

// Directory reads resources.
type Directory interface {
	Get(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID) (*directory.Resource, error)
	List(ctx context.Context, tenant uuid.UUID, q directory.Query) ([]*directory.Resource, int, error)
}

// Lifecycle writes resources, together with what the changes mean.
type Lifecycle interface {
	Create(ctx context.Context, tenant uuid.UUID, r *directory.Resource, by lifecycle.Cause) (*directory.Resource, error)
	Update(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, by lifecycle.Cause,
		edit func(*directory.Resource) (*directory.Resource, error)) (*directory.Resource, error)
	Delete(ctx context.Context, tenant uuid.UUID, resourceType string, id uuid.UUID, by lifecycle.Cause,
		precondition func(*directory.Resource) error) error
}

// Authenticator names the caller that holds a token.
type Authenticator interface {
	Authenticate(ctx context.Context, secret string, classes ...tenant.Class) (tenant.Caller, error)
}

// Server answers SCIM requests.
type Server struct {
	directory Directory
	lifecycle Lifecycle
	tokens    Authenticator
	publicURL string
	log       *slog.Logger
	types     []*ResourceType
}

// New returns a server. publicURL is what clients call the installation
// (https://leaver.example.com); empty means what each request says.
func New(d Directory, l Lifecycle, tokens Authenticator, publicURL string, log *slog.Logger) *Server {
	return &Server{
		directory: d, lifecycle: l, tokens: tokens, publicURL: publicURL, log: log,
		types: []*ResourceType{UserType(), GroupType(), AgentType()},
	}
}

// Handler returns the routes, to be mounted at [BasePath]. Authentication
// stands before routing: no path, however it is encoded, gets around it.
func (s *Server) Handler() http.Handler {
	r := chi.NewRouter()
	r.Use(s.authenticate)
	r.NotFound(func(w http.ResponseWriter, req *http.Request) {
		s.writeError(w, req, failure(http.StatusNotFound, "no such endpoint"))
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, req *http.Request) {
		s.writeError(w, req, failure(http.StatusMethodNotAllowed, "the endpoint does not take "+req.Method))
	})
	for _, rt := range s.types {
		h := resourceHandler{Server: s, rt: rt}
		r.Get(rt.Endpoint, h.list)
		r.Post(rt.Endpoint, h.create)
		r.Get(rt.Endpoint+"/{id}", h.get)
		r.Put(rt.Endpoint+"/{id}", h.replace)
		r.Patch(rt.Endpoint+"/{id}", h.patch)
		r.Delete(rt.Endpoint+"/{id}", h.delete)
	}
	r.Get("/ServiceProviderConfig", s.serviceProviderConfig)
	r.Get("/ResourceTypes", s.resourceTypes)
	r.Get("/ResourceTypes/{name}", s.resourceType)
	r.Get("/Schemas", s.schemas)
	r.Get("/Schemas/{urn}", s.schema)
	r.Get("/Me", s.me)
	return r
}

type callerKey struct{}

// caller is who authenticate let through.
func caller(r *http.Request) tenant.Caller {
	c, _ := r.Context().Value(callerKey{}).(tenant.Caller)
	return c
}

func (s *Server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.tokens.Authenticate(r.Context(), tenant.Bearer(r.Header.Get("Authorization")), tenant.ClassSCIM)
		if errors.Is(err, tenant.ErrUnauthorized) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="leaver"`)
			s.writeError(w, r, failure(http.StatusUnauthorized, "present a valid SCIM token as Authorization: Bearer"))
			return
		}
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// base is the URL that locations start with.
func (s *Server) base(r *http.Request) string {
	if s.publicURL != "" {
		return s.publicURL + BasePath
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + BasePath
}
