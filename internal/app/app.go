// Package app assembles leaver's packages into the API, the worker and the
// migrations, for `leaver`, `leaver-dev` and the end-to-end tests.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cache"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/entitlement"
	"github.com/leaverhq/leaver/internal/erasure"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/login"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/internal/siem"
	"github.com/leaverhq/leaver/internal/ssf"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/internal/tracing"
	"github.com/leaverhq/leaver/scim"
	"github.com/leaverhq/leaver/worker"
)

var errNoDatabase = errors.New("no database: set database.url or LEAVER_DATABASE_URL")

// App holds what the API and the worker share.
type App struct {
	Config     *config.Config
	Log        *slog.Logger
	DB         *database.DB
	Sealer     *seal.Sealer
	Temporal   client.Client
	Connectors registry.Registry
	tenants    *tenant.Store
	auth       *auth.Store
	Lifecycle  *lifecycle.Writer
	// Entitlements is shared because it caches compiled rules.
	Entitlements *entitlement.Store
	Signals      *ssf.Store      // shared because it caches the signing keys
	auditSink    siem.Sink       // nil if none is configured
	login        *login.Provider // nil if none is configured
	traces       *tracing.Tracer // nil if none is configured
	sdkMetrics   *sdkMetrics
	certificates *certificates // nil for plain HTTP
	// stopping is closed when Serve stops.
	stopping chan struct{}
	// checks caches what the connectors' checks found.
	checks *cache.Cache[struct{}, []health.Problem]
}

// New opens the connectors and connections that the configuration names. It succeeds while
// PostgreSQL and Temporal are down, and returns an error if the configuration is invalid.
func New(ctx context.Context, cfg *config.Config, log *slog.Logger) (*App, error) {
	if cfg.Database.URL == "" {
		return nil, errNoDatabase
	}
	sealer, err := seal.Load(cfg.Seal.KeysetFile, cfg.Seal.Keyset)
	if err != nil {
		return nil, err
	}
	if err := checkMode(cfg.Seal.KeysetFile); err != nil {
		log.Warn("found unprotected key set", "reason", err)
	}
	sink, err := siem.Open(cfg.Audit)
	if err != nil {
		return nil, err
	}
	people, err := login.New(cfg.Login)
	if err != nil {
		return nil, err
	}
	certificates, err := openCertificates(cfg.Serve, log)
	if err != nil {
		return nil, err
	}
	registry, err := worker.Connectors(cfg)
	if err != nil {
		return nil, err
	}
	for _, warning := range append(registry.Overlaps(), cfg.Warnings...) {
		log.Warn("found a probable mistake in the configuration", "reason", warning)
	}
	db, err := database.Open(ctx, cfg.Database.URL)
	if err != nil {
		registry.Close()
		return nil, err
	}
	metrics, err := newSDKMetrics(log)
	var temporal client.Client
	var traces *tracing.Tracer
	if err == nil {
		temporal, traces, err = connect(ctx, cfg.Temporal, sealer, log, metrics.handler)
	}
	if err != nil {
		registry.Close()
		db.Close()
		return nil, err
	}
	a := &App{
		Config: cfg, Log: log, DB: db, Sealer: sealer, Temporal: temporal, Connectors: registry, tenants: tenant.NewStore(db),
		traces: traces, sdkMetrics: metrics, auditSink: sink, login: people,
		certificates: certificates, stopping: make(chan struct{}),
		checks: cache.New[struct{}, []health.Problem](1, checksTTL),
	}
	a.auth = auth.NewStore(db, a.tenants)
	a.Lifecycle = lifecycle.NewWriter(db, a.Starter(), log)
	a.Signals = ssf.NewStore(db, sealer)
	a.Entitlements = entitlement.NewStore(db, scim.Vocabulary)
	return a, nil
}

// connect returns the client of Temporal and the tracer that it uses.
func connect(
	ctx context.Context, cfg config.Temporal, sealer *seal.Sealer, log *slog.Logger, metrics client.MetricsHandler,
) (client.Client, *tracing.Tracer, error) {
	traces, err := tracing.Open(ctx, log)
	if err != nil {
		return nil, nil, err
	}
	interceptors, err := traces.Interceptors()
	var c client.Client
	if err == nil {
		c, err = worker.NewClient(cfg, sealer, log, metrics, interceptors...)
	}
	if err != nil {
		traces.Close()
		return nil, nil, err
	}
	return c, traces, nil
}

// Close closes what New opened.
func (a *App) Close() {
	a.Lifecycle.Close()
	if a.auditSink != nil {
		_ = a.auditSink.Close()
	}
	a.Temporal.Close()
	a.sdkMetrics.close()
	a.Connectors.Close()
	a.DB.Close()
	a.traces.Close()
}

// Tenants returns the store of tenants.
func (a *App) Tenants() *tenant.Store { return a.tenants }

// Auth returns the store of tokens and issuers.
func (a *App) Auth() *auth.Store { return a.auth }

// Credentials returns the store of credentials and scheduled runs.
func (a *App) Credentials() *credential.Store {
	return credential.NewStore(a.DB, a.Sealer, a.Entitlements)
}

// Cascades returns the store of cascades.
func (a *App) Cascades() *cascade.Store { return cascade.NewStore(a.DB) }

// Evidence returns the store of evidence.
func (a *App) Evidence() *evidence.Store { return evidence.NewStore(a.DB) }

// Chain returns the hash chains of evidence.
func (a *App) Chain() *evidence.Chain { return evidence.NewChain(a.DB, a.Sealer) }

// Erasure returns what erases people who have left, and evidence that is not kept any longer.
func (a *App) Erasure() *erasure.Store { return erasure.NewStore(a.DB, a.Chain()) }

// Archive returns the archive of workflow histories.
func (a *App) Archive() *evidence.Archive {
	return evidence.NewArchive(a.DB, a.Starter())
}

// Follower returns what sends the evidence to the audit sink, or nil if none is configured.
func (a *App) Follower() *siem.Follower {
	if a.auditSink == nil {
		return nil
	}
	return siem.NewFollower(a.DB, a.Chain(), a.auditSink, a.Config.Audit.Sink+" "+a.Config.Audit.Address)
}

// Starter returns the starter of workflows.
func (a *App) Starter() *worker.Starter {
	return worker.NewStarter(a.Temporal, worker.Policy(a.Config.Policy), seal.FailureConverter(a.Sealer), a.roles)
}

// defaultConcurrentCascades is the default maximum of concurrent cascades that one actor has started.
const defaultConcurrentCascades = 32

// Relay returns the relay of the outbox.
func (a *App) Relay() *lifecycle.Relay {
	atOnce := a.Config.Policy.MaxConcurrentCascades
	if atOnce == 0 {
		atOnce = defaultConcurrentCascades
	}
	return lifecycle.NewRelay(a.DB, a.Starter(), atOnce, a.Log)
}

// roles returns the connectors that take part in a tenant's workflows. It does not look up the
// tenant if no connector discovers or notifies.
func (a *App) roles(ctx context.Context, id uuid.UUID) (worker.Roles, error) {
	roles := worker.Roles{RateLimited: a.Connectors.Rated()}
	if !a.Connectors.NeedsTenant() {
		return roles, nil
	}
	t, err := a.Tenants().ByID(ctx, id)
	if err != nil {
		return roles, err
	}
	roles.Notify, roles.Discover = a.Connectors.Notifiers(t.Name), a.Connectors.Discoverers(t.Name)
	return roles, nil
}

// Activities returns the activities of the workers.
func (a *App) Activities() *activities.Activities {
	return &activities.Activities{
		Credentials: a.Credentials(), Evidence: a.Evidence(), Cascades: a.Cascades(), Connectors: a.Connectors,
		Pauses: registry.NewPauses(a.DB), Threshold: cascade.NewThreshold(a.DB),
		Tenants: a.Tenants(), Directory: directory.NewStore(a.DB), Lifecycle: a.Lifecycle, Health: health.NewStore(a.DB),
		Runner:       a.Starter(),
		Entitlements: a.Entitlements, Signals: a.Signals, Pusher: ssf.NewPusher(a.Config.Signals.PrivateReceivers),
	}
}

// Migrate applies the migrations, creates the application's login role, and registers Temporal's
// namespace, search attributes and schedules. It is idempotent.
func Migrate(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	if cfg.Database.MigrateURL == "" {
		return errors.New("no database: set database.migrate_url or LEAVER_DATABASE_MIGRATE_URL")
	}
	// Check the configuration first, so that a mistake cannot leave a partial migration.
	sealer, err := seal.Load(cfg.Seal.KeysetFile, cfg.Seal.Keyset)
	if err != nil {
		return err
	}
	if err := worker.CheckPublishers(cfg); err != nil {
		return err
	}
	if err := database.CheckOwner(ctx, cfg.Database.MigrateURL); err != nil {
		return err
	}
	n, err := database.Migrate(ctx, cfg.Database.MigrateURL)
	if err != nil {
		return err
	}
	log.Info("applied migrations", "migrations_applied", n)
	if err := refold(ctx, cfg.Database.MigrateURL, log); err != nil {
		return err
	}
	switch cfg.Database.URL {
	case "":
		log.Warn("skipped the login role: database.url is not set")
	case cfg.Database.MigrateURL:
		log.Warn("skipped the login role: database.url names the owner, which bypasses row-level security; name another role")
	default:
		done, err := database.EnsureAppRole(ctx, cfg.Database.MigrateURL, cfg.Database.URL)
		if err != nil {
			return err
		}
		log.Info("prepared login role", "done", done)
	}
	namespace, err := worker.EnsureNamespace(ctx, cfg.Temporal)
	if err != nil {
		return fmt.Errorf("prepare Temporal: %w", err)
	}
	log.Info("prepared namespace and search attributes", "namespace", namespace.Name, "created", namespace.Created,
		"retention", namespace.Retention.String())
	schedules, err := worker.EnsureSchedules(ctx, cfg, sealer, log)
	if err != nil {
		return fmt.Errorf("create the schedules of the reconciler and the drill: %w", err)
	}
	if err := storeSchedules(ctx, cfg.Database.MigrateURL, schedules); err != nil {
		return err
	}
	for _, s := range schedules {
		if s.Reason != "" {
			log.Warn("skipped schedule", "schedule", s.ID, "reason", s.Reason)
			continue
		}
		log.Info("created schedule", "schedule", s.ID)
	}
	return nil
}

// refold stores the comparison keys of resources that an older version of leaver stored, and logs
// a warning for each two resources whose names have the same key.
func refold(ctx context.Context, ownerURL string, log *slog.Logger) error {
	conn, closeConn, err := asOwner(ctx, ownerURL)
	if err != nil {
		return err
	}
	defer closeConn()
	n, collisions, err := directory.Refold(ctx, conn, func(ctx context.Context, id uuid.UUID) (directory.Keyer, error) {
		declared, err := tenant.ReadSchemas(ctx, conn, id)
		if err != nil {
			return nil, err
		}
		return scim.NewKeyer(declared)
	})
	if err != nil {
		return fmt.Errorf("store comparison keys: %w", err)
	}
	if n > 0 {
		log.Info("stored the comparison keys of resources", "resources", n, "collisions", len(collisions))
	}
	for _, c := range collisions {
		log.Warn("found two resources with the same name", "collision", c.String())
	}
	return nil
}

// storeSchedules stores when each run was first scheduled, so that no alert fires before the first
// run.
func storeSchedules(ctx context.Context, ownerURL string, schedules []worker.Schedule) error {
	var kinds []health.Kind
	for _, s := range schedules {
		if s.Reason == "" {
			kinds = append(kinds,
				map[string]health.Kind{worker.ReconcileID: health.Reconcile, worker.DrillID: health.Drill}[s.ID])
		}
	}
	conn, closeConn, err := asOwner(ctx, ownerURL)
	if err != nil {
		return err
	}
	defer closeConn()
	return health.Schedule(ctx, conn, kinds...)
}

// asOwner returns a connection as the owner of the tables, and a function that closes it.
func asOwner(ctx context.Context, ownerURL string) (conn *pgx.Conn, closeConn func(), err error) {
	conn, err = pgx.Connect(ctx, ownerURL)
	if err != nil {
		return nil, nil, fmt.Errorf("connect as the owner: %w", err)
	}
	return conn, func() { _ = conn.Close(context.WithoutCancel(ctx)) }, nil
}
