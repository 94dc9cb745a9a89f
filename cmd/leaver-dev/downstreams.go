package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/leaverhq/leaver/activities/connectors/postgres/scram"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack"
	"github.com/leaverhq/leaver/internal/devstack/mcp"
	"github.com/leaverhq/leaver/internal/devstack/openid"
	leaverworker "github.com/leaverhq/leaver/worker"
)

// agentsNamespace is the Temporal namespace of the agents' scheduled runs. It stands for the
// agent platform's Temporal.
const agentsNamespace = "agent-platform"

const agentsQueue = "agents"

// downstreams are the systems for which agents hold credentials.
type downstreams struct {
	openid   *openid.Provider
	mcp      *mcp.Server
	platform *platform
	receiver *receiver
	broker   *broker
	cache    *cache // nil if Redis is not installed
	// application is a tenant of this leaver that Ada has an account in.
	application application
	database    string // as the connector's role
	owner       string // as the superuser
	temporal    client.Client
	address     string
	suffix      string
	closers     []func()
}

func (d *downstreams) stop() {
	for i := len(d.closers) - 1; i >= 0; i-- {
		d.closers[i]()
	}
}

// The environment variables from which the connectors' settings read their secrets.
const (
	openidVariable   = "LEAVER_DEV_OPENID_SECRET"
	databaseVariable = "LEAVER_DEV_DATABASE_URL"
	platformVariable = "LEAVER_DEV_PLATFORM_SECRET"
	brokerVariable   = "LEAVER_DEV_BROKER_SECRET"
)

// startDownstreams starts the downstreams. leaver is the URL of this leaver.
func startDownstreams(ctx context.Context, stack *devstack.Stack, leaver string) (*downstreams, error) {
	d := &downstreams{suffix: strings.ReplaceAll(uuid.NewString(), "-", "")[:8], address: stack.TemporalAddress}
	d.application.url = leaver + "/t/app-" + d.suffix + "/scim/v2"
	for _, start := range []func(context.Context, *devstack.Stack) error{
		d.startOpenID, d.startDatabase, d.startAgents, d.startPlatform,
	} {
		if err := start(ctx, stack); err != nil {
			d.stop()
			return nil, err
		}
	}
	for name, value := range map[string]string{
		openidVariable: d.openid.ClientSecret, databaseVariable: d.database, platformVariable: d.platform.secret,
		brokerVariable: d.broker.secret, cacheVariable: d.cache.url(),
	} {
		if err := os.Setenv(name, value); err != nil {
			d.stop()
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	return d, nil
}

func (d *downstreams) startOpenID(ctx context.Context, _ *devstack.Stack) error {
	provider, err := openid.Start(ctx)
	if err != nil {
		return err
	}
	d.openid = provider
	d.closers = append(d.closers, provider.Close)
	d.mcp, err = mcp.Start(ctx, provider)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.mcp.Close)
	return nil
}

func (d *downstreams) startPlatform(ctx context.Context, _ *devstack.Stack) error {
	platform, stop, err := startPlatform(ctx)
	if err != nil {
		return err
	}
	d.platform = platform
	d.closers = append(d.closers, stop)
	d.receiver, stop, err = startReceiver(ctx)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, stop)
	d.broker, stop, err = startBroker(ctx)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, stop)
	d.cache, stop, err = startCache(ctx)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, stop)
	return nil
}

// startDatabase creates a second database and a role with CREATEROLE and pg_signal_backend,
// as the postgres connector requires.
func (d *downstreams) startDatabase(ctx context.Context, stack *devstack.Stack) error {
	conn, err := pgx.Connect(ctx, stack.DatabaseURL)
	if err != nil {
		return fmt.Errorf("connect to the downstream database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	name, password := "crm_"+d.suffix, rand.Text()
	verifier, err := scram.NewVerifier(password)
	if err != nil {
		return err
	}
	for _, sql := range []string{
		"create role " + name + "_admin login createrole password '" + verifier + "'",
		"grant pg_signal_backend to " + name + "_admin",
		"create database " + name,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("prepare the downstream database: %w", err)
		}
	}
	d.owner = withDatabase(stack.DatabaseURL, name)
	d.database = login(d.owner, name+"_admin", password)
	return nil
}

// login returns the URL with another role and its password.
func login(raw, user, password string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	q := u.Query()
	q.Del("user")
	u.RawQuery = q.Encode()
	if u.Host == "" { // a socket: user information needs a host in a URL
		q.Set("user", user)
		q.Set("password", password)
		u.RawQuery = q.Encode()
		return u.String()
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

// startAgents starts a worker for the agents' workflows, so that the drill's schedule starts
// real runs.
func (d *downstreams) startAgents(ctx context.Context, stack *devstack.Stack) error {
	if _, err := leaverworker.EnsureNamespace(ctx,
		config.Temporal{Address: stack.TemporalAddress, Namespace: agentsNamespace}); err != nil {
		return err
	}
	c, err := client.DialContext(ctx,
		client.Options{HostPort: stack.TemporalAddress, Namespace: agentsNamespace, Logger: quiet{}})
	if err != nil {
		return fmt.Errorf("connect to the agents' Temporal: %w", err)
	}
	w := worker.New(c, agentsQueue, worker.Options{})
	w.RegisterWorkflow(WriteToCustomers)
	if err := w.Start(); err != nil {
		c.Close()
		return fmt.Errorf("start the agents' worker: %w", err)
	}
	d.temporal = c
	d.closers = append(d.closers, c.Close, w.Stop)
	return nil
}

// WriteToCustomers is the workflow of the scheduled agent. It sleeps for 24 hours unless it is
// cancelled or terminated.
func WriteToCustomers(ctx workflow.Context) error {
	return workflow.Sleep(ctx, 24*time.Hour)
}

// tenant returns the name of the drill's tenant, the only one that the connectors serve.
func (d *downstreams) tenant() string { return "drill-" + d.suffix }

// yaml returns the part of leaver.yaml that configures the downstreams.
func (d *downstreams) yaml() string {
	return fmt.Sprintf(`signals:
  private_receivers: true
connectors:
  - name: workspace
    type: oauth2
    tenants: [%[1]s]
    revocation_url: %[2]s
    introspection_url: %[3]s
    token_url: %[4]s
    client_id: %[5]s
    client_secret: env:%[6]s
  - name: crm
    type: postgres
    tenants: [%[1]s]
    url: env:%[7]s
    publish_to: platform
  - name: platform
    type: webhook
    tenants: [%[1]s]
    url: %[8]s
    secret: env:%[9]s
  - name: agent-runs
    type: temporal
    tenants: [%[1]s]
    address: %[10]s
    namespace: %[11]s
  - name: application
    type: scim
    tenants: [%[1]s]
    url: %[12]s
    token: env:%[13]s
  - name: broker
    type: nango
    tenants: [%[1]s]
    url: %[14]s
    secret_key: env:%[15]s
`, d.tenant(), d.openid.RevocationURL(), d.openid.IntrospectionURL(), d.openid.TokenURL(), openid.ClientID,
		openidVariable, databaseVariable, d.platform.url+"/leaver", platformVariable, d.address, agentsNamespace,
		d.application.url, applicationVariable, d.broker.url, brokerVariable) + d.cache.yaml(d.tenant())
}

// quiet discards the SDK's log lines, which would mix with the drill's output.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
