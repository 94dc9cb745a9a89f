package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/app"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/tenant"
)

func (c *cli) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "serve", Short: "Run the SCIM and API server, which also starts the workflows", Args: cobra.NoArgs,
		RunE: c.withApp(func(ctx context.Context, cfg *config.Config, a *app.App) error {
			listener, err := net.Listen("tcp", cfg.Serve.Listen)
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			var codec net.Listener
			if cfg.Codec.Listen != "" {
				if codec, err = net.Listen("tcp", cfg.Codec.Listen); err != nil {
					return errors.Join(fmt.Errorf("listen for the codec server: %w", err), listener.Close())
				}
			}
			return a.Serve(ctx, listener, codec)
		}),
	}
}

func (c *cli) workerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "worker", Short: "Run the worker, which executes the workflows and the connectors' activities",
		Args: cobra.NoArgs,
		RunE: c.withApp(func(ctx context.Context, _ *config.Config, a *app.App) error { return a.Work(ctx) }),
	}
}

// withApp loads the configuration, opens the App and calls run with both.
func (c *cli) withApp(run func(context.Context, *config.Config, *app.App) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		cfg, log, err := c.loadWithLog()
		if err != nil {
			return err
		}
		a, err := app.New(cmd.Context(), cfg, log)
		if err != nil {
			return err
		}
		defer a.Close()
		return run(cmd.Context(), cfg, a)
	}
}

func (c *cli) migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "migrate", Args: cobra.NoArgs,
		Short: "Create or update the schema, the login role, and Temporal's namespace, search attributes and schedules",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, log, err := c.loadWithLog()
			if err != nil {
				return err
			}
			return app.Migrate(cmd.Context(), cfg, log)
		},
	}
}

// bootstrapCommand returns the command that issues the first operator token and all approver
// tokens. It needs access to the database; the API issues all other tokens.
func (c *cli) bootstrapCommand() *cobra.Command {
	var ttl time.Duration
	class := string(auth.ClassOperator)
	var list bool
	var revoke string
	cmd := &cobra.Command{
		Use: "bootstrap", Args: cobra.NoArgs,
		Short: "Issue an operator or approver token directly in the database; it is shown once",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if class != string(auth.ClassOperator) && class != string(auth.ClassApprover) {
				return coded(exitUsage, "--class must be operator or approver, got %q", class)
			}
			cfg, err := c.load()
			if err != nil {
				return err
			}
			db, err := database.Open(cmd.Context(), cfg.Database.URL)
			if err != nil {
				return err
			}
			defer db.Close()
			store := auth.NewStore(db, tenant.NewStore(db))
			switch {
			case list:
				tokens, err := store.Tokens(cmd.Context(), uuid.Nil, auth.Class(class))
				if err != nil {
					return err
				}
				return c.print(tokens, tokenHeader, tokenRows(tokens...))
			case revoke != "":
				id, err := uuid.Parse(revoke)
				if err != nil {
					return coded(exitUsage, "--revoke must be the id of a token, got %q", revoke)
				}
				return store.Revoke(cmd.Context(), uuid.Nil, id, auth.Class(class))
			}
			_, secret, err := store.Issue(cmd.Context(), uuid.Nil, auth.NewToken{
				Class: auth.Class(class), Description: "bootstrap", TTL: ttl,
			})
			if err != nil {
				return err
			}
			return c.secret(secret)
		},
	}
	cmd.Flags().BoolVar(&list, "list", false, "list the tokens of the class in --class instead of issuing one")
	cmd.Flags().StringVar(&revoke, "revoke", "",
		"revoke the token with this id, of the class in --class, instead of issuing one")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long the token is valid; 0 means that it does not expire")
	cmd.Flags().StringVar(&class, "class", class,
		"class of the token: operator, or approver, which may only approve, loosen settings and erase users")
	return cmd
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info, _ := debug.ReadBuildInfo()
			v := version{Version: "(devel)"}
			if info != nil {
				v.Version, v.Go = info.Main.Version, info.GoVersion
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			return c.print(v, []string{"VERSION", "REVISION", "GO"}, [][]string{{v.Version, v.Revision, v.Go}})
		},
	}
}

type version struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
}
