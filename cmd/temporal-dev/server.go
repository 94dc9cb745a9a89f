package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/metrics"
	_ "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite" // registers the plugin
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/server_options"
)

const (
	clusterName = "active"
	// clusterID is constant because a server refuses a store with another
	// cluster id, and the SQLite file is used by later processes.
	clusterID = "6c1d9b1e-2f6b-4f0a-9f0e-6c6561766572"
	storeName = "sqlite"
)

// run serves until ctx ends or the Web UI fails. The server is healthy once all of it has started.
func run(ctx context.Context, o options) error {
	cfg, err := serverConfig(o)
	if err != nil {
		return err
	}
	if err := prepareStore(cfg, o); err != nil {
		return err
	}
	dynamic, err := o.dynamicConfig()
	if err != nil {
		return err
	}
	var state health
	server, err := temporal.NewServer(
		temporal.WithConfig(cfg),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(staticHosts(cfg)),
		temporal.WithLogger(log.NewZapLogger(log.BuildZapLogger(cfg.Log))),
		temporal.WithAuthorizer(callerAuthorizer{}),
		temporal.WithClaimMapper(newCallerClaims),
		temporal.WithChainedFrontendGrpcInterceptors(state.intercept),
		temporal.WithDynamicConfigClient(dynamic),
		temporal.WithCustomMetricsHandler(metrics.NoopMetricsHandler),
	)
	if err != nil {
		return fmt.Errorf("configure the server: %w", err)
	}
	if err := server.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	defer func() { _ = server.Stop() }()

	failed := make(chan error, 1)
	if !o.Headless {
		ui, err := newUI(o)
		if err != nil {
			return err
		}
		go func() { failed <- ui.Start() }()
		defer ui.Stop()
		if err := o.waitForUI(ctx, failed); err != nil {
			return err
		}
	}
	state.started.Store(true)
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return o.uiFailure(err)
	}
}

// waitForUI returns nil once the Web UI is healthy or ctx ends, and an error if it fails.
func (o options) waitForUI(ctx context.Context, failed <-chan error) error {
	check := "http://" + net.JoinHostPort(o.uiHost(), strconv.Itoa(o.uiPort())) + "/healthz"
	caller := http.Client{Timeout: time.Second}
	for {
		if res, err := caller.Get(check); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return o.ownUI(failed)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return o.uiFailure(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ownUI returns an error if the Web UI fails at once: then a UI of another process has its port, and has answered.
func (o options) ownUI(failed <-chan error) error {
	select {
	case err := <-failed:
		return o.uiFailure(err)
	case <-time.After(uiFailsWithin):
		return nil
	}
}

// uiFailsWithin is how long the Web UI may take to see that its port is taken, which ends the process.
const uiFailsWithin = 200 * time.Millisecond

func (o options) uiFailure(err error) error {
	return fmt.Errorf("web UI on port %d: %w", o.uiPort(), err)
}

func serverConfig(o options) (*config.Config, error) {
	sql, err := storeConfig(o)
	if err != nil {
		return nil, err
	}
	services := make(map[string]config.Service, len(temporal.DefaultServices))
	for _, name := range temporal.DefaultServices {
		port := o.Port
		if name != string(primitives.FrontendService) {
			if port, err = freePort(o.IP); err != nil {
				return nil, err
			}
		}
		services[name] = config.Service{RPC: config.RPC{GRPCPort: port, BindOnIP: o.IP}}
	}
	frontend := net.JoinHostPort(o.IP, strconv.Itoa(o.Port))
	return &config.Config{
		Global: config.Global{Membership: config.Membership{
			MaxJoinDuration: 30 * time.Second, BroadcastAddress: "127.0.0.1",
		}},
		Persistence: config.Persistence{
			DefaultStore:     storeName,
			VisibilityStore:  storeName,
			NumHistoryShards: 1,
			DataStores:       map[string]config.DataStore{storeName: {SQL: sql}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: frontend, ClusterID: clusterID},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Services:            services,
		Archival: config.Archival{
			History:    config.HistoryArchival{State: "disabled"},
			Visibility: config.VisibilityArchival{State: "disabled"},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: "disabled"},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
		}},
		PublicClient: config.PublicClient{HostPort: frontend},
		Log:          log.Config{Stdout: false, Level: logLevel(o.LogLevel), Format: o.LogFormat},
	}, nil
}

func logLevel(name string) string {
	if name == "never" {
		return "fatal"
	}
	return name
}

func storeConfig(o options) (*config.SQL, error) {
	if o.DBFilename == "" {
		return &config.SQL{
			PluginName:        "sqlite",
			DatabaseName:      fmt.Sprintf("leaver-%d", os.Getpid()),
			ConnectAttributes: map[string]string{"mode": "memory", "cache": "shared"},
		}, nil
	}
	path, err := filepath.Abs(o.DBFilename)
	if err != nil {
		return nil, fmt.Errorf("--db-filename %q: %w", o.DBFilename, err)
	}
	return &config.SQL{
		PluginName:   "sqlite",
		DatabaseName: path,
		ConnectAttributes: map[string]string{
			"mode": "rwc", "_journal_mode": "wal", "journal_mode": "wal", "synchronous": "normal",
		},
	}, nil
}

// prepareStore creates the schema in a new SQLite file (in memory, the plugin
// creates it) and the namespaces.
func prepareStore(cfg *config.Config, o options) error {
	sql := cfg.Persistence.DataStores[storeName].SQL
	if o.DBFilename != "" {
		_, err := os.Stat(sql.DatabaseName)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("stat the SQLite file: %w", err)
		}
		if err != nil {
			if err := sqlite.SetupSchema(sql); err != nil {
				return fmt.Errorf("create the SQLite schema: %w", err)
			}
		}
	}
	attributes, err := o.searchAttributes()
	if err != nil {
		return err
	}
	return createNamespaces(sql, append([]string{"default"}, o.Namespaces...), attributes)
}

func createNamespaces(sql *config.SQL, names []string, attributes map[string]enumspb.IndexedValueType) error {
	var namespaces []*sqlite.NamespaceConfig
	for _, name := range names {
		namespace, err := sqlite.NewNamespaceConfig(clusterName, name, false, attributes)
		if err != nil {
			return fmt.Errorf("namespace %q: %w", name, err)
		}
		namespaces = append(namespaces, namespace)
	}
	if err := sqlite.CreateNamespaces(sql, namespaces...); err != nil {
		return fmt.Errorf("create namespaces: %w", err)
	}
	return nil
}

func staticHosts(cfg *config.Config) map[primitives.ServiceName]static.Hosts {
	hosts := make(map[primitives.ServiceName]static.Hosts, len(cfg.Services))
	for name, service := range cfg.Services {
		address := net.JoinHostPort(service.RPC.BindOnIP, strconv.Itoa(service.RPC.GRPCPort))
		hosts[primitives.ServiceName(name)] = static.SingleLocalHost(address)
	}
	return hosts
}

func newUI(o options) (*uiserver.Server, error) {
	cfg := &uiconfig.Config{
		TemporalGRPCAddress: net.JoinHostPort(o.IP, strconv.Itoa(o.Port)),
		Host:                o.uiHost(),
		Port:                o.uiPort(),
		EnableUI:            true,
		DisableNewsFetch:    true,
		HideLogs:            true,
		Codec:               uiconfig.Codec{Endpoint: o.UICodecEndpoint},
		CORS:                uiconfig.CORS{CookieInsecure: true},
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure the web UI: %w", err)
	}
	return uiserver.NewServer(server_options.WithConfigProvider(cfg)), nil
}

func freePort(ip string) (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return 0, fmt.Errorf("find a free port on %s: %w", ip, err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
