package scim

import (
	"errors"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim/schema"
)

// authenticate identifies the caller by a leaver token or by a JWT of the tenant's issuer,
// and enforces the tenant's rate limit.
func (s *Server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := s.caller(r)
		if errors.Is(err, auth.ErrUnauthorized) {
			err = errNoToken
		}
		if err != nil {
			if toError(err).Status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="leaver"`)
			}
			s.writeError(w, r, err)
			return
		}
		s.admit(next, w, r, caller)
	})
}

func (s *Server) caller(r *http.Request) (auth.Caller, error) {
	secret := auth.Bearer(r.Header)
	name := chi.URLParam(r, "tenant")
	if strings.Count(secret, ".") == 2 {
		return s.Auth.AuthenticateJWT(r.Context(), secret, name)
	}
	caller, err := s.Auth.Authenticate(r.Context(), secret, auth.ClassSCIM)
	if err == nil && name != "" && caller.Tenant.Name != name {
		return auth.Caller{}, auth.ErrUnauthorized
	}
	if err == nil && caller.Tenant.IPSIE && !onlySCIM(caller) {
		return auth.Caller{}, errOAuthOnly
	}
	return caller, err
}

var (
	errNoToken = failure(http.StatusUnauthorized, "present a valid SCIM token as Authorization: Bearer")
	// errOAuthOnly is returned for a token that IPSIE AL SCIM 2.0 section 4.1 does not permit.
	errOAuthOnly = failure(http.StatusUnauthorized, "the tenant accepts only access tokens of its token endpoint "+
		"with the scope scim and no other, and JWTs of its issuers")
)

// onlySCIM reports whether the caller has an OAuth access token for SCIM and nothing else.
func onlySCIM(c auth.Caller) bool { return slices.Equal(c.Scopes, []auth.Scope{auth.ScopeSCIM}) }

// admit serves the request unless the tenant exceeds its rate limit.
func (s *Server) admit(next http.Handler, w http.ResponseWriter, r *http.Request, caller auth.Caller) {
	if wait := s.limits.wait(r.Context(), caller.Tenant, s.RequestsPerSecond); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(wait))
		s.writeError(w, r, failure(http.StatusTooManyRequests, "the tenant exceeds its rate limit; see Retry-After"))
		return
	}
	next.ServeHTTP(w, withSession(r, session{Caller: caller, base: s.base(r)}))
}

// discoverable serves a tenant's discovery endpoints without a token if the tenant allows it
// and the path names the tenant (RFC 7643 section 5). Requests with a token are
// authenticated as usual.
func (s *Server) discoverable(guard func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		guarded := guard(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name := chi.URLParam(r, "tenant")
			if name == "" || r.Header.Get("Authorization") != "" {
				guarded.ServeHTTP(w, r)
				return
			}
			// Requests without a token have a separate rate limit, so they do not use the IdP's.
			if !s.strangers.Allow() {
				w.Header().Set("Retry-After", "1")
				s.writeError(w, r, failure(http.StatusTooManyRequests,
					"too many requests without a token; retry in one second or present a token"))
				return
			}
			of, err := s.Tenants.ByName(r.Context(), name)
			if err != nil && !errors.Is(err, tenant.ErrNotFound) {
				s.writeError(w, r, err)
				return
			}
			if err != nil || !of.PublicDiscovery || of.IPSIE {
				guarded.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, withSession(r, session{Caller: auth.Caller{Tenant: of}, base: s.base(r)}))
		})
	}
}

// negotiate responds 406 if the client does not accept SCIM's media types (RFC 9110 section
// 12.5.1). Weights above 0 do not matter, because there is one representation.
func (s *Server) negotiate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accept := strings.Join(r.Header.Values("Accept"), ",")
		if accept != "" && !acceptsSCIM(accept) {
			s.writeError(w, r, failure(http.StatusNotAcceptable,
				"Accept must allow "+contentType+", got "+schema.Clip(accept)))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func acceptsSCIM(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil {
			media = strings.TrimSpace(part) // accept a malformed media type as written
		}
		weight, err := strconv.ParseFloat(params["q"], 64)
		if err == nil && weight == 0 {
			continue
		}
		switch strings.ToLower(media) {
		case contentType, "application/json", "application/*", "*/*", "*", "":
			return true
		}
	}
	return false
}

// base returns the URL that locations start with, for the path that the request uses.
func (s *Server) base(r *http.Request) string {
	path := BasePath
	if name := chi.URLParam(r, "tenant"); name != "" {
		path = strings.Replace(TenantPath, "{tenant}", name, 1)
	}
	if s.PublicURL != "" {
		return s.PublicURL + path
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + path
}
