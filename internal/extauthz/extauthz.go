// Package extauthz answers a proxy's question whether a request may pass, by the access token that the
// request carries: over HTTP, and over gRPC as Envoy's ext_authz filter asks
// (https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/security/ext_authz_filter).
package extauthz

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/authzen"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// BasePath is the path prefix that a proxy puts before the path of the request.
const BasePath = "/access/v1/ext-authz"

// timeout limits the duration of an answer.
const timeout = 2 * time.Second

// The headers by which a proxy identifies itself and the subject of the request. It must set or remove
// each of them: otherwise the client of the proxy could.
//
//nolint:gosec // G101: names of headers
const (
	tokenHeader    = "X-Leaver-Token"    // leaver's own token, of class platform
	actionHeader   = "X-Leaver-Action"   // default: the method in lower case
	resourceHeader = "X-Leaver-Resource" // type:id; default: mcp_server: and the audience of the token
)

// Server decides about requests.
type Server struct {
	Auth  *auth.Store
	Store *authzen.Store
	Log   *slog.Logger
	// Client asks issuers. It follows no redirects.
	Client *http.Client
}

// request is what a proxy asks about.
type request struct {
	Gateway  string // leaver's token of the proxy
	Token    string // the access token of the proxied request
	Method   string
	Action   string
	Resource string // type:id
}

// verdict is the answer: 200, or the status and reason of the denial.
type verdict struct {
	Status     int
	Reason     string
	ValidUntil *time.Time
}

// The reasons of verdicts besides those of package authzen.
const (
	reasonGateway     = "gateway_unauthorized"
	reasonToken       = "invalid_token"
	reasonUnavailable = "unavailable"
	reasonResource    = "invalid_resource" // the proxy's header is not type:id
)

// check answers a request. A token that is not valid is 401; a dependency that does not answer is 503,
// never a permit.
func (s *Server) check(ctx context.Context, r request) verdict {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	gateway, err := s.Auth.Authenticate(ctx, r.Gateway, auth.ClassPlatform, auth.ClassGateway)
	if errors.Is(err, auth.ErrUnauthorized) {
		return verdict{Status: http.StatusUnauthorized, Reason: reasonGateway}
	}
	var access auth.Access
	if err == nil {
		access, err = s.Auth.OpenAccess(ctx, r.Token, gateway.Tenant.Name)
	}
	if errors.Is(err, auth.ErrUnauthorized) {
		return verdict{Status: http.StatusUnauthorized, Reason: reasonToken}
	}
	var answer authzen.Answer
	if err == nil {
		kind, id, _ := strings.Cut(cmp.Or(r.Resource, "mcp_server:"+access.Audience), ":")
		if kind == "" || id == "" {
			s.Log.ErrorContext(ctx, resourceHeader+" must be type:id; correct the proxy's configuration", "got", r.Resource)
			return verdict{Status: http.StatusForbidden, Reason: reasonResource}
		}
		answer, err = s.Store.DecideToken(ctx, gateway.Tenant, access, authzen.Request{
			Action: cmp.Or(r.Action, strings.ToLower(r.Method)), ResourceType: kind, Resource: id,
		})
	}
	switch {
	case err != nil:
		s.Log.ErrorContext(ctx, "failed to decide about a proxied request", "error", err)
		return verdict{Status: http.StatusServiceUnavailable, Reason: reasonUnavailable}
	case answer.Reason != authzen.Allow:
		return verdict{Status: http.StatusForbidden, Reason: string(answer.Reason)}
	}
	return verdict{Status: http.StatusOK, ValidUntil: answer.Until}
}

// headers returns the headers of a verdict: those of the response to a denied request, and those that the
// proxy adds to a permitted one.
func (v verdict) headers() map[string]string {
	headers := make(map[string]string)
	if v.Status != http.StatusOK {
		headers["Cache-Control"] = "no-store"
	}
	switch {
	case v.Reason == reasonToken:
		headers["WWW-Authenticate"] = `Bearer error="invalid_token"` // RFC 6750 section 3
	case v.Status == http.StatusServiceUnavailable:
		headers["Retry-After"] = "1"
	case v.ValidUntil != nil:
		headers["X-Leaver-Valid-Until"] = v.ValidUntil.UTC().Format(time.RFC3339)
	}
	return headers
}

// ServeHTTP answers Envoy's HTTP service, nginx's auth_request and Traefik's forwardAuth: 200 lets the
// request pass.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := s.check(r.Context(), request{
		Gateway: r.Header.Get(tokenHeader), Token: auth.Bearer(r.Header), Method: r.Method,
		Action: r.Header.Get(actionHeader), Resource: r.Header.Get(resourceHeader),
	})
	for name, value := range v.headers() {
		w.Header().Set(name, value)
	}
	if v.Status == http.StatusOK {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
		return
	}
	httpjson.Answer(w, v.Status, map[string]string{"reason": v.Reason})
}
