package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	"go.temporal.io/sdk/converter"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/authzen"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/console"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/extauthz"
	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/oauth"
	"github.com/leaverhq/leaver/internal/receiver"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/internal/ssf"
	"github.com/leaverhq/leaver/scim"
	"github.com/leaverhq/leaver/worker"
)

const (
	// drain bounds how long requests in flight may take after the process is asked to stop.
	drain = 30 * time.Second
	// healthTimeout bounds each check of PostgreSQL and of Temporal in /readyz.
	healthTimeout = 2 * time.Second
)

// Handler returns the handler of all HTTP routes except metrics and the codec server.
func (a *App) Handler() http.Handler {
	r := chi.NewRouter()
	r.Use(a.catchPanics)
	r.Get("/livez", func(w http.ResponseWriter, _ *http.Request) {
		writeHealth(w, http.StatusOK, map[string]any{"status": "ok"})
	})
	r.Get("/readyz", a.ready)
	starter := a.Starter()
	provider := scim.New(scim.Config{
		Directory: directory.NewStore(a.DB), Lifecycle: a.Lifecycle, Transactions: a.Cascades(), Tenants: a.Tenants(),
		Auth: a.Auth(), Sealer: a.Sealer,
		PublicURL: a.Config.Serve.PublicURL, RequestsPerSecond: a.Config.Serve.RequestsPerSecond, Log: a.Log,
	}).Handler()
	r.Mount(scim.BasePath, provider)
	r.Mount(scim.TenantPath, provider)
	server := &api.Server{
		Tenants: a.Tenants(), Auth: a.Auth(), Credentials: a.Credentials(), Cascades: a.Cascades(), Evidence: a.Evidence(),
		Directory: directory.NewStore(a.DB), Lifecycle: a.Lifecycle, Threshold: cascade.NewThreshold(a.DB),
		Pauses: registry.NewPauses(a.DB), Connectors: a.Connectors, Runner: starter, Entitlements: a.Entitlements,
		Decisions: authzen.NewStore(a.DB, a.Entitlements),
		Signals:   a.Signals, Audit: audit.NewStore(a.DB), Chain: a.Chain(), Archive: a.Archive(),
		Erasure:   a.Erasure(),
		Health:    health.NewStore(a.DB),
		PublicURL: a.Config.Serve.PublicURL, CheckSchema: scim.CheckDeclared, Slow: a.DB.Slow, Log: a.Log,
	}
	r.Mount(api.BasePath, server.Handler())
	access := &authzen.Server{Store: server.Decisions, Auth: server.Auth, PublicURL: server.PublicURL, Log: server.Log}
	r.Mount(authzen.BasePath, access.Handler())
	r.Get(authzen.MetadataPath, access.Metadata)
	guard := &extauthz.Server{
		Auth: server.Auth, Store: server.Decisions, Log: server.Log, Client: connectors.NewHTTPClient(),
	}
	r.Post(extauthz.IntrospectionPath, guard.Introspect)
	r.Handle(extauthz.BasePath, guard)
	r.Handle(extauthz.BasePath+"/*", guard)
	r.Method(http.MethodPost, extauthz.GRPCPath, guard.NewGRPC())
	ending := &receiver.Server{
		Auth: server.Auth, Directory: server.Directory, Lifecycle: server.Lifecycle, PublicURL: server.PublicURL,
		Log: server.Log,
	}
	changes := r.With(auth.ForChange)
	changes.Post(receiver.RevocationPath, ending.RevokeGlobally)
	changes.Post(receiver.TenantRevocationPath, ending.RevokeGlobally)
	changes.Post(receiver.EventsPath, ending.ReceiveEvent)
	transmitter := &ssf.Server{
		Store: server.Signals, Auth: server.Auth, PrivateReceivers: a.Config.Signals.PrivateReceivers,
		PublicURL: server.PublicURL, Log: server.Log,
		Resolve: func(
			ctx context.Context, tenant uuid.UUID, subject json.RawMessage, own, issuer string,
		) (uuid.UUID, error) {
			found, err := server.Directory.BySubject(ctx, tenant, subject,
				directory.Origin{Own: own, Issuer: issuer, IssuedAt: time.Now()})
			return found.ID, err
		},
	}
	issuer := &oauth.Server{Auth: server.Auth, Tenants: server.Tenants, PublicURL: server.PublicURL, Log: server.Log}
	r.Post(oauth.TokenPath, issuer.Token)
	r.Get(oauth.MetadataPath, issuer.Metadata)
	r.Mount(ssf.BasePath, transmitter.Handler())
	r.Get(ssf.MetadataPath, transmitter.Metadata)
	pages := &console.Server{
		Auth: server.Auth, Login: a.login, API: r, PublicURL: server.PublicURL, Log: server.Log,
		Stopping: a.stopping, TemporalUI: strings.TrimSuffix(a.Config.Temporal.UIURL, "/"),
		Namespace: a.Config.Temporal.Namespace,
	}
	r.Mount(api.ConsolePath, pages.Handler())
	return a.traces.Handler(r)
}

// catchPanics responds with 500 if a handler panics, and logs the panic with its stack.
func (a *App) catchPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if cause == http.ErrAbortHandler { //nolint:errorlint // net/http panics with it unwrapped
				panic(cause) // the server aborts the response
			}
			a.Log.Error("recovered from panic in handler", "path", r.URL.Path, "cause", fmt.Sprint(cause),
				"stack", string(debug.Stack()))
			w.Header().Set("Content-Type", "application/scim+json")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w,
				`{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"500","detail":"internal error"}`)
		}()
		next.ServeHTTP(w, r)
	})
}

// ready responds with 503 without PostgreSQL, which every request needs. Without Temporal it
// responds with 200 and the status degraded: SCIM works, and cascades start when Temporal is back.
func (a *App) ready(w http.ResponseWriter, r *http.Request) {
	p := &snapshot{App: a}
	body := map[string]any{"status": "ok", "postgresql": "ok", "temporal": "ok"}
	if p.askPostgreSQL(r.Context()); p.schemaErr != nil {
		status := "down"
		if errors.Is(p.schemaErr, database.ErrMisconfigured) {
			status = "not set up"
		}
		writeHealth(w, http.StatusServiceUnavailable, map[string]any{"status": "unavailable", "postgresql": status})
		return
	}
	p.askTemporal(r.Context())
	switch {
	case errors.Is(p.namespaceErr, worker.ErrMisconfigured):
		body["status"], body["temporal"] = "degraded", "not set up"
	case p.namespaceErr != nil:
		body["status"], body["temporal"] = "degraded", "down"
	}
	if r.URL.Query().Has("verbose") {
		_, refused := a.Auth().Authenticate(r.Context(), auth.Bearer(r.Header), auth.OperatorClasses()...)
		if refused != nil {
			body["problems"] = []string{
				"send a token of an operator, a viewer or an auditor as Authorization: Bearer to read the problems",
			}
		} else {
			p.verbose(r.Context(), body)
		}
	}
	writeHealth(w, http.StatusOK, body)
}

func writeHealth(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// Serve serves the API on listener and, unless codec is nil, the codec server on codec, and relays
// events, until ctx ends. Then it waits up to 30 s for requests in flight.
func (a *App) Serve(ctx context.Context, listener, codec net.Listener) error {
	servers := []*http.Server{newServer(a.Handler(), a.Log)}
	listeners := []net.Listener{listener}
	if codec != nil {
		servers, listeners = append(servers, newServer(a.Codec(), a.Log)), append(listeners, codec)
	}
	if err := a.checkStart(ctx); err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	defer a.serveMetrics(ctx, a.Config.Metrics.Listen)()
	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	background.Go(func() { a.checkKeyset(ctx, cancel) })
	background.Go(func() { a.Relay().Run(ctx) })
	background.Go(func() { a.Lifecycle.Expire(ctx) })
	background.Go(func() { a.Signals.Relay(ctx, a.Starter(), a.Log) })
	background.Go(func() { a.Signals.Listen(ctx, a.Log) })
	background.Go(func() { a.Chain().Run(ctx, a.Log) })
	background.Go(func() { a.Archive().Run(ctx, a.Log) })
	background.Go(func() { a.Erasure().Run(ctx, a.Log) })
	if follower := a.Follower(); follower != nil {
		background.Go(func() { follower.Run(ctx, a.Log) })
	}
	servers[0].RegisterOnShutdown(sync.OnceFunc(func() { close(a.stopping) }))
	failed := make(chan error, len(servers))
	exempt := []func(*http.Request) bool{isProbe, isPreflight} // of the API, and of the codec server
	for i, server := range servers {
		serve := server.Serve
		if a.certificates != nil {
			a.certificates.secure(server, exempt[i])
			serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
		}
		a.Log.Info("listening", "address", listeners[i].Addr().String(), "tls", a.certificates != nil)
		background.Go(func() { failed <- serve(listeners[i]) })
	}
	var err error
	select {
	case <-ctx.Done():
		if errors.Is(context.Cause(ctx), seal.ErrUnknownKey) {
			err = context.Cause(ctx)
		}
	case err = <-failed:
	}
	stop, release := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer release()
	for _, server := range servers {
		err = errors.Join(err, server.Shutdown(stop))
	}
	if errors.Is(err, http.ErrServerClosed) && !errors.Is(err, seal.ErrUnknownKey) {
		return nil
	}
	return err
}

func closeAll(listeners []net.Listener) (err error) {
	for _, l := range listeners {
		err = errors.Join(err, l.Close())
	}
	return err
}

func newServer(handler http.Handler, log *slog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC
	return &http.Server{
		Protocols: &protocols,
		Handler:   handler, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 90 * time.Second,
		IdleTimeout: 2 * time.Minute,
	}
}

// Codec returns the handler of the codec server, which decodes payloads for the Temporal UI. It
// does not encode, because workers would accept the result as leaver's own payloads. It allows
// only browsers with a configured origin; a proxy in front of it must authenticate the callers.
func (a *App) Codec() http.Handler {
	handler := converter.NewPayloadCodecHTTPHandler(seal.NewCodec(a.Sealer))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/decode") {
			http.Error(w, "the codec server supports only /decode", http.StatusNotFound)
			return
		}
		origin := r.Header.Get("Origin")
		for _, allowed := range a.Config.Codec.AllowedOrigins {
			if origin == allowed {
				w.Header().Set("Access-Control-Allow-Origin", origin)
				w.Header().Set("Access-Control-Allow-Methods", "POST, OPTIONS")
				w.Header().Set("Access-Control-Allow-Headers", "Content-Type, X-Namespace, Authorization")
				w.Header().Set("Vary", "Origin")
				if r.Method == http.MethodOptions {
					w.WriteHeader(http.StatusNoContent)
					return
				}
				handler.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, "the origin is not allowed; add it to codec.allowed_origins", http.StatusForbidden)
	})
}
