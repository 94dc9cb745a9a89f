// Package oauth serves the token endpoint of each tenant: OAuth 2.0 client credentials (RFC 6749 section 4.4)
// with private_key_jwt (RFC 7523 section 2.2).
package oauth

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/ssf"
	"github.com/leaverhq/leaver/internal/tenant"
)

const (
	// TokenPath is the path of a tenant's token endpoint.
	TokenPath = "/t/{tenant}/oauth2/token" //nolint:gosec // a path
	// MetadataPath is the path of its metadata: the issuer's path is appended to the well-known path (RFC 8414
	// section 3.1).
	MetadataPath = "/.well-known/oauth-authorization-server/t/{tenant}"

	grantType     = "client_credentials"
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

	maxForm        = 32 << 10 // bytes
	tokenTimeout   = 10 * time.Second
	metadataMaxAge = time.Hour
)

// Server serves the token endpoints.
type Server struct {
	Auth    *auth.Store
	Tenants *tenant.Store
	// PublicURL is the base URL for clients. If it is empty, the request's host is used.
	PublicURL string
	Log       *slog.Logger
}

// issuer returns the issuer of the request's tenant, which is that of its security events, too.
func (s *Server) issuer(r *http.Request) string {
	return ssf.IssuerOf(httpjson.BaseURL(r, s.PublicURL), chi.URLParam(r, "tenant"))
}

// endpoint returns the URL of the request's tenant's token endpoint.
func (s *Server) endpoint(r *http.Request) string {
	return httpjson.BaseURL(r, s.PublicURL) + strings.Replace(TokenPath, "{tenant}", chi.URLParam(r, "tenant"), 1)
}

// Metadata serves a tenant's authorization server metadata (RFC 8414). It does not reveal whether the tenant
// exists.
func (s *Server) Metadata(w http.ResponseWriter, r *http.Request) {
	httpjson.AnswerCacheable(w, metadataMaxAge, map[string]any{
		"issuer":                                s.issuer(r),
		"token_endpoint":                        s.endpoint(r),
		"scopes_supported":                      auth.Scopes(),
		"response_types_supported":              []string{},
		"grant_types_supported":                 []string{grantType},
		"token_endpoint_auth_methods_supported": []string{"private_key_jwt"},
		"token_endpoint_auth_signing_alg_values_supported": auth.Algorithms(),
	})
}

// failure is an error answer (RFC 6749 section 5.2).
type failure struct {
	Status      int    `json:"-"`
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (f failure) Error() string { return f.Code + ": " + f.Description }

// Token serves the token endpoint.
func (s *Server) Token(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), tokenTimeout)
	defer cancel()
	scopes, secret, err := s.exchange(ctx, w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Pragma", "no-cache") // RFC 6749 section 5.1
	httpjson.Answer(w, http.StatusOK, map[string]any{
		"access_token": secret, "token_type": "Bearer", "expires_in": int(auth.AccessTTL / time.Second),
		"scope": join(scopes),
	})
}

func (s *Server) exchange(
	ctx context.Context, w http.ResponseWriter, r *http.Request,
) (scopes []auth.Scope, secret string, err error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, "", failure{
			http.StatusBadRequest, "invalid_request",
			"the body must be application/x-www-form-urlencoded and at most 32 KiB long",
		}
	}
	form := r.PostForm
	for name, values := range form {
		if len(values) > 1 { // RFC 6749 section 3.2
			return nil, "", failure{http.StatusBadRequest, "invalid_request", name + " is given more than once"}
		}
	}
	switch {
	case form.Get("grant_type") == "":
		return nil, "", failure{http.StatusBadRequest, "invalid_request", "grant_type is required"}
	case form.Get("grant_type") != grantType:
		return nil, "", failure{http.StatusBadRequest, "unsupported_grant_type", "grant_type must be " + grantType}
	case r.Header.Get("Authorization") != "" || form.Get("client_secret") != "":
		return nil, "", failure{
			http.StatusUnauthorized, "invalid_client", "authenticate by client_assertion only: clients have no secret",
		}
	case form.Get("client_assertion") == "" || form.Get("client_assertion_type") != assertionType:
		return nil, "", failure{
			http.StatusUnauthorized, "invalid_client",
			"client_assertion is required, with client_assertion_type " + assertionType,
		}
	}
	host := url.URL{Host: r.Host}
	if s.PublicURL == "" && !auth.IsLoopback(host.Hostname()) {
		return nil, "", failure{
			http.StatusServiceUnavailable, "temporarily_unavailable",
			"serve.public_url is not set: without it a request's Host would decide for whom an assertion is",
		}
	}
	of, err := s.Tenants.ByName(ctx, chi.URLParam(r, "tenant"))
	if errors.Is(err, tenant.ErrNotFound) {
		return nil, "", auth.ErrUnauthorized
	}
	if err != nil {
		return nil, "", err
	}
	return s.Auth.Exchange(ctx, of, auth.Assertion{
		Client: form.Get("client_id"), JWT: form.Get("client_assertion"),
		Audiences: []string{s.issuer(r), s.endpoint(r)}, Scopes: split(form.Get("scope")),
	})
}

// fail answers with an error of OAuth (RFC 6749 section 5.2), and logs an internal one.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var f failure
	var scope *auth.InvalidScopeError
	switch {
	case errors.As(err, &f):
	case errors.As(err, &scope):
		f = failure{http.StatusBadRequest, "invalid_scope", scope.Error()}
	case errors.Is(err, auth.ErrUnauthorized):
		f = failure{
			http.StatusUnauthorized, "invalid_client",
			"the client is unknown, or its assertion is not valid: sign it with a registered key, with iss and sub the " +
				"client_id, aud the issuer, a new jti, and exp within an hour",
		}
	default:
		problem := httpjson.ProblemOf(err)
		if problem.Status == http.StatusInternalServerError || problem.Status == http.StatusServiceUnavailable {
			s.Log.ErrorContext(r.Context(), "failed to issue a token", "error", err)
			problem = httpjson.Problem{Status: http.StatusServiceUnavailable, Detail: "try again later"}
		}
		w.Header().Set("Retry-After", "5")
		f = failure{problem.Status, "temporarily_unavailable", problem.Detail}
	}
	if f.Status == http.StatusUnauthorized { // with the scheme that the client used, by RFC 6749 section 5.2
		challenge := "Bearer"
		if _, _, basic := r.BasicAuth(); basic {
			challenge = "Basic"
		}
		w.Header().Set("WWW-Authenticate", challenge)
	}
	s.Log.WarnContext(r.Context(), "refused a token request", "tenant", chi.URLParam(r, "tenant"), "error", f.Code)
	httpjson.Answer(w, f.Status, f)
}

func split(scope string) (scopes []auth.Scope) {
	for name := range strings.FieldsSeq(scope) {
		scopes = append(scopes, auth.Scope(name))
	}
	return scopes
}

func join(scopes []auth.Scope) string {
	names := make([]string, len(scopes))
	for i, scope := range scopes {
		names[i] = string(scope)
	}
	return strings.Join(names, " ")
}
