// Command leaver-dev runs leaver on one machine, with a private PostgreSQL
// cluster, a Temporal server with its UI, the API, a worker and downstream
// systems, and drills the deactivation of a user through them.
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

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func main() {
	// The OpenID provider logs each refusal to the default logger. The drill
	// provokes refusals, which would clutter its output.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// exitSurvivors is the exit code if a credential survived the cascade.
const exitSurvivors = 5

// errSurvived is returned if a credential, a run or an agent is still active after the cascade.
var errSurvived = errors.New("the drill failed: something is still active or not verified; see the table above")

type options struct {
	once, ephemeral, noInstall bool
	broken                     string
	data, listen               string
	temporalPort, uiPort       int
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var o options
	root := &cobra.Command{
		Use:   "leaver-dev",
		Short: "Run the whole stack and drill a deactivation through it",
		Args:  cobra.NoArgs, SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.broken != "" && o.broken != "oauth2" {
				return fmt.Errorf("--break must be oauth2, got %q", o.broken)
			}
			return develop(cmd.Context(), o, newConsole(stdin, stdout, stderr))
		},
	}
	f := root.Flags()
	f.BoolVar(&o.once, "once", false,
		"exit after the drill; exit code 0: everything is verified dead, 5: something survived")
	f.BoolVar(&o.ephemeral, "ephemeral", false,
		"keep no data: run Temporal in memory and PostgreSQL in a temporary folder")
	f.BoolVar(&o.noInstall, "no-install", false, "do not install PostgreSQL if it is missing")
	f.StringVar(&o.broken, "break", "",
		"break a downstream (oauth2), so that the cascade fails: Enter repairs it, and a re-run in the console ends the rest")
	f.StringVar(&o.data, "data", "", "data folder (default: leaver-dev in the user's state folder)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "listen address of SCIM and the API; port 0 selects a free port")
	f.IntVar(&o.temporalPort, "temporal-port", 0, "port of Temporal; 0 selects a free port")
	f.IntVar(&o.uiPort, "ui-port", 0, "port of Temporal's UI; 0 selects a free port")
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errSurvived):
		_, _ = fmt.Fprintln(stderr, "leaver-dev:", err)
		return exitSurvivors
	}
	_, _ = fmt.Fprintln(stderr, "leaver-dev:", err)
	return 1
}

// console writes the drill's output to a terminal or a pipe.
type console struct {
	in       io.Reader
	out      io.Writer
	err      io.Writer
	terminal bool
}

func newConsole(in io.Reader, out, err io.Writer) *console {
	file, ok := out.(*os.File)
	terminal := ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == ""
	return &console{in: in, out: out, err: err, terminal: terminal}
}

// say writes a line to stdout.
func (c *console) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.out, format+"\n", args...)
}

// note writes a progress line to stderr.
func (c *console) note(format string, args ...any) {
	_, _ = fmt.Fprintf(c.err, "· "+format+"\n", args...)
}

// live overwrites the terminal's current line. It writes nothing to a pipe.
func (c *console) live(format string, args ...any) {
	if c.terminal {
		_, _ = fmt.Fprintf(c.out, "\r\x1b[K"+format, args...)
	}
}
