package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/app"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/internal/tenant"
)

// appRole is the login role of the application in the development database.
const appRole = "leaver_dev"

// develop starts the stack, runs the drill and, unless o.once is set, waits until ctx ends.
func develop(ctx context.Context, o options, c *console) (err error) {
	codec, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the codec server: %w", err)
	}
	defer func() { _ = codec.Close() }()
	stack, err := devstack.Start(ctx, devstack.Options{
		Data: o.data, Ephemeral: o.ephemeral, NoInstall: o.noInstall, TemporalPort: o.temporalPort, UIPort: o.uiPort,
		CodecEndpoint: "http://" + codec.Addr().String(), Log: c.note,
	})
	if err != nil {
		return err
	}
	defer stack.Stop()
	defer func() {
		if err != nil {
			err = errors.Join(stack.Err(), err)
		}
	}()
	c.note("PostgreSQL and Temporal are up (data in %s)", stack.Data)

	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer func() { _ = listener.Close() }()
	peers, err := startDownstreams(ctx, stack, "http://"+listener.Addr().String())
	if err != nil {
		return err
	}
	defer peers.stop()
	cfg, err := newConfig(ctx, stack, peers)
	if err != nil {
		return err
	}
	i, err := startInstallation(ctx, cfg, listener, codec, stack.Data, peers)
	if err != nil {
		return err
	}
	defer i.stop()

	peers.openid.Refuse(o.broken == "oauth2")
	d := &drill{console: c, installation: i, peers: peers, ui: stack.TemporalUI, namespace: cfg.Temporal.Namespace}
	drillErr := d.run(ctx)
	if drillErr != nil && !errors.Is(drillErr, errSurvived) {
		select {
		case err := <-i.ended:
			drillErr = errors.Join(err, drillErr)
		default:
		}
		return fmt.Errorf("drill: %w; the log is %s", drillErr, i.logFile)
	}
	if err := d.links(ctx); err != nil {
		return err
	}
	if o.once {
		return drillErr
	}
	c.say("\nEverything stays up; stop it with Ctrl-C.")
	if o.broken != "" {
		go d.repair()
	}
	<-ctx.Done()
	return nil
}

// repair repairs what --break broke when the user presses Enter.
func (d *drill) repair() {
	d.say("The OAuth server refuses to revoke tokens, and the cascade has failed: see it in the console.\n" +
		"Press Enter to repair the server; then press Re-run on the page of the cascade.")
	if _, err := bufio.NewReader(d.in).ReadString('\n'); err != nil {
		return // standard input is closed
	}
	d.peers.openid.Refuse(false)
	d.say("The OAuth server revokes tokens again.")
}

// newConfig creates the database and the keyset, and returns the configuration that an
// installation has in leaver.yaml.
func newConfig(ctx context.Context, stack *devstack.Stack, peers *downstreams) (*config.Config, error) {
	database, err := createDatabase(ctx, stack.DatabaseURL)
	if err != nil {
		return nil, err
	}
	keyset := filepath.Join(stack.Data, "keyset.json")
	if err := ensureKeyset(keyset); err != nil {
		return nil, err
	}
	cfg, err := config.Parse("leaver.yaml", []byte(peers.yaml()), os.Environ())
	if err != nil {
		return nil, err
	}
	cfg.Database = config.Database{URL: withUser(database, appRole), MigrateURL: database}
	cfg.Temporal = config.Temporal{Address: stack.TemporalAddress, Namespace: "leaver", UIURL: stack.TemporalUI}
	cfg.Seal = config.Seal{KeysetFile: keyset}
	if u, err := url.Parse(stack.TemporalUI); err == nil && u.Host != "" {
		cfg.Codec.AllowedOrigins = []string{stack.TemporalUI, "http://localhost:" + u.Port()}
	}
	return cfg, nil
}

// createDatabase creates the database `leaver` if it is missing, and returns its URL.
func createDatabase(ctx context.Context, owner string) (string, error) {
	conn, err := pgx.Connect(ctx, owner)
	if err != nil {
		return "", fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var exists bool
	if err := conn.QueryRow(ctx,
		`select exists (select 1 from pg_database where datname = 'leaver')`).Scan(&exists); err != nil {
		return "", fmt.Errorf("check whether the database exists: %w", err)
	}
	if !exists {
		if _, err := conn.Exec(ctx, `create database leaver`); err != nil {
			return "", fmt.Errorf("create the database: %w", err)
		}
	}
	return withDatabase(owner, "leaver"), nil
}

func withDatabase(raw, name string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw // pgx connected with it, so it is a URL
	}
	u.Path = "/" + name
	return u.String()
}

// withUser returns the URL with another role, which needs no password in a private cluster.
func withUser(raw, user string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	if q := u.Query(); q.Has("user") {
		q.Set("user", user)
		u.RawQuery = q.Encode()
		return u.String()
	}
	password, _ := u.User.Password()
	u.User = url.UserPassword(user, password)
	return u.String()
}

func ensureKeyset(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	keyset, err := seal.GenerateKeyset()
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, keyset, 0o600); err != nil {
		return fmt.Errorf("write the keyset: %w", err)
	}
	return nil
}

// installation is a running leaver, with API, relay and workers in this process.
type installation struct {
	app     *app.App
	url     string
	logFile string
	tenant  tenant.Tenant
	// Tokens of the classes scim, platform, receiver and operator.
	scim, platform, receiver, operator string
	// ended receives the error of an API or a worker that ended before stop was called.
	ended chan error
	stop  func()
}

func startInstallation(
	ctx context.Context, cfg *config.Config, listener, codec net.Listener, data string, peers *downstreams,
) (*installation, error) {
	i := &installation{logFile: filepath.Join(data, "leaver.log"), ended: make(chan error, 2)}
	file, err := os.OpenFile(i.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	log := slog.New(slog.NewJSONHandler(file, nil))
	if err := app.Migrate(ctx, cfg, log); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := peers.application.open(ctx, cfg, "app-"+peers.suffix); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	i.url = "http://" + listener.Addr().String()
	if i.app, err = app.New(ctx, cfg, log); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	for _, part := range []func() error{
		func() error { return i.app.Serve(running, listener, codec) },
		func() error { return i.app.Work(running) },
	} {
		parts.Go(func() {
			if err := part(); err != nil {
				log.Error("failed to run the API or the worker", "error", err)
				i.ended <- err
			}
		})
	}
	i.stop = func() {
		cancel()
		parts.Wait()
		i.app.Close()
		_ = file.Close()
	}
	if err := i.provision(ctx, peers.tenant()); err != nil {
		i.stop()
		return nil, err
	}
	return i, nil
}

// provision creates this run's tenant and issues its tokens.
func (i *installation) provision(ctx context.Context, name string) error {
	tenants := i.app.Tenants()
	var err error
	if i.tenant, err = tenants.Create(ctx, name, tenant.ProfileDefault); err != nil {
		return err
	}
	for class, secret := range map[auth.Class]*string{
		auth.ClassSCIM: &i.scim, auth.ClassPlatform: &i.platform, auth.ClassReceiver: &i.receiver,
		auth.ClassOperator: &i.operator,
	} {
		of := i.tenant.ID
		if class == auth.ClassOperator {
			of = uuid.Nil
		}
		if _, *secret, err = i.app.Auth().Issue(ctx, of, auth.NewToken{Class: class, Description: "leaver-dev"}); err != nil {
			return err
		}
	}
	return nil
}

// workflowLink returns the URL of a workflow in Temporal's UI.
func workflowLink(ui, namespace, workflowID, runID string) string {
	return ui + "/namespaces/" + namespace + "/workflows/" + url.PathEscape(workflowID) + "/" + runID + "/history"
}
