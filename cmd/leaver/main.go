// Command leaver runs the API, the worker and the operator's commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/logging"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Exit codes; the README documents them.
const (
	exitOK        = 0
	exitError     = 1
	exitUsage     = 2
	exitNotFound  = 3
	exitAuth      = 4
	exitSurvivors = 5
	exitRunning   = 6
)

// codedError is an error with the exit code of the process.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func coded(code int, format string, args ...any) error {
	return &codedError{code: code, err: fmt.Errorf(format, args...)}
}

// run executes the command line, prints its error to stderr and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintln(stderr, "leaver:", escaped(err.Error(), "\n"))
	var withCode *codedError
	if errors.As(err, &withCode) {
		return withCode.code
	}
	return exitError
}

// cli holds the output and the global flags of all commands.
type cli struct {
	stdout, stderr io.Writer
	configFile     string
	output         string
	url            string
	tokenFile      string
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	c := &cli{stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:           "leaver",
		Short:         "Deprovision identities and the credentials of their agents",
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs, // strictArgs reports unknown commands
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmd.ValidateRequiredFlags(); err != nil {
				return coded(exitUsage, "%w; see `%s --help`", err, cmd.CommandPath())
			}
			if c.output != "" && c.output != "json" && c.output != "table" {
				return coded(exitUsage, "--output must be json or table, got %q", c.output)
			}
			return nil
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return coded(exitUsage, "%w", err) })
	f := root.PersistentFlags()
	f.StringVar(&c.configFile, "config", "", "configuration file (default: leaver.yaml, if it exists)")
	f.StringVarP(&c.output, "output", "o", "",
		"output format: json or table (default: table on a terminal, tab-separated rows in a pipe)")
	f.StringVar(&c.url, "url", "", "URL of the API, for operator commands (default: LEAVER_URL, or http://127.0.0.1:8080)")
	f.StringVar(&c.tokenFile, "token-file", "",
		"file with the token (default: LEAVER_TOKEN, then the session of leaver login)")
	root.AddCommand(
		c.serveCommand(), c.workerCommand(), c.migrateCommand(), c.bootstrapCommand(), c.keysetCommand(), c.configCommand(),
		c.evidenceCommand(), c.tenantCommand(), c.tokenCommand(), c.clientCommand(), c.issuerCommand(), c.schemaCommand(),
		c.principalCommand(), c.mappingCommand(), c.streamCommand(), c.credentialCommand(), c.cascadeCommand(),
		c.holdCommand(), c.waiverCommand(), c.connectorCommand(), c.changeCommand(), c.actCommand(),
		c.consoleCommand(), c.loginCommand(), c.doctorCommand(), c.reportCommand(),
		c.scimCommand(), c.versionCommand(),
	)
	strictArgs(root)
	return root
}

// strictArgs makes invalid arguments and unknown subcommands of command and all
// its subcommands usage errors.
func strictArgs(command *cobra.Command) {
	if check := command.Args; check != nil {
		command.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return coded(exitUsage, "%w; see `%s --help`", err, cmd.CommandPath())
			}
			return nil
		}
	}
	if command.HasSubCommands() {
		own := command.RunE // not nil if the group is itself a command, such as keyset
		command.RunE = func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && own != nil:
				return own(cmd, args)
			case len(args) > 0:
				return coded(exitUsage, "%s has no command %q; see `%s --help`", cmd.CommandPath(), args[0], cmd.CommandPath())
			}
			return cmd.Help()
		}
	}
	for _, sub := range command.Commands() {
		strictArgs(sub)
	}
}

// troubleInterval is the minimum interval between two log records of the same warning or error.
const troubleInterval = time.Minute

// logger returns a logger that writes to stderr; stdout is for the command's output. It returns
// a usage error if log.level is invalid.
func (c *cli) logger(cfg *config.Config) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		return nil, coded(exitUsage, "log.level must be debug, info, warn or error, got %q", cfg.Log.Level)
	}
	handler := slog.NewJSONHandler(c.stderr, &slog.HandlerOptions{Level: level})
	return slog.New(logging.Limited(handler, troubleInterval)), nil
}

// loadWithLog returns the configuration and a logger with its log level.
func (c *cli) loadWithLog() (*config.Config, *slog.Logger, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, nil, err
	}
	log, err := c.logger(cfg)
	return cfg, log, err
}

func (c *cli) load() (*config.Config, error) {
	cfg, err := config.Load(c.configFile)
	if err != nil {
		return nil, coded(exitUsage, "%w", err)
	}
	return cfg, nil
}
