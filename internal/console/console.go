// Package console serves the web console: pages for operators, security and auditors, rendered on the server. Each page
// and each button is a call of the API with the token of the session, so that the API decides who may do what.
package console

import (
	"embed"
	"html/template"
	"log/slog"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cache"
	"github.com/leaverhq/leaver/internal/login"
)

//go:embed assets
var assets embed.FS

//go:embed templates/*.html
var templates embed.FS

// Server serves the console.
type Server struct {
	Auth *auth.Store
	// Login signs people in; nil if no identity provider is configured.
	Login *login.Provider
	// API is the handler of the whole of leaver's API, which the console calls in this process.
	API http.Handler
	// PublicURL is the base URL for browsers; if it is https, cookies are for https only.
	PublicURL string
	// TemporalUI is the base URL of Temporal's UI, and Namespace leaver's namespace; without a URL there are no links.
	TemporalUI, Namespace string
	// Stopping is closed when the server stops, which ends the updates of open pages.
	Stopping <-chan struct{}
	Log      *slog.Logger

	pages   map[string]*template.Template
	streams streams
	health  *cache.Cache[struct{}, readiness]
}

// Handler returns the routes, to be mounted at [api.ConsolePath].
func (s *Server) Handler() http.Handler {
	s.pages = parse()
	s.health = cache.New[struct{}, readiness](1, healthTTL)
	r := chi.NewRouter()
	r.Use(protect, http.NewCrossOriginProtection().Handler)
	r.Get("/assets/*", http.StripPrefix(api.ConsolePath, http.FileServerFS(assets)).ServeHTTP)
	r.Get("/sign-in", s.showSignIn)
	r.Post("/sign-in", s.signIn)
	if s.Login != nil {
		r.Get("/login", s.startLogin)
		r.Get("/login/callback", s.finishLogin)
	}
	r.Group(func(r chi.Router) {
		r.Use(s.requireSession)
		r.Post("/sign-out", s.signOut)
		r.Get("/", s.page("installation", installation))
		r.Get("/connectors", s.page("connectors", connectorList))
		s.actOn(r, "/connectors/{name}", "pause", "resume")
		r.Route("/tenants/{tenant}", s.serveTenant)
	})
	return r
}

func (s *Server) serveTenant(r chi.Router) {
	r.Get("/", s.page("attention", attention))
	r.Get("/cascades", s.page("cascades", cascades))
	r.Get("/cascades/{id}", s.page("cascade", s.cascade))
	s.actOn(r, "/cascades/{id}", "rerun", "retry", "waive", "cancel")
	r.Get("/principals", s.page("principals", principals))
	r.Get("/principals/{id}", s.page("principal", principal))
	r.Get("/principals/{id}/plan", s.page("plan", plan))
	r.Post("/principals/{id}/report", s.writeReport)
	s.actOn(r, "/principals/{id}", "end", "restore")
	s.actOn(r, "/holds", "approve")
	s.actOn(r, "/waivers/{id}", "approve", "decline")
	s.actOn(r, "/unmanaged/{id}", "claim")
	r.Get("/time-to-zero", s.page("timing", timing))
	r.Get("/evidence", s.page("evidence", evidencePage))
	r.Post("/evidence/export", s.exportEvidence)
	r.Get("/tokens", s.page("tokens", tokens))
	r.Post("/tokens", s.issueToken)
	r.Post("/tokens/{id}/revoke", s.revokeToken)
}

// protect sets the headers of every response, and refuses paths that are not encoded as usual.
func protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawPath != "" && r.URL.EscapedPath() != r.URL.RawPath { // the API would be called by another path
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "+
			"img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}
