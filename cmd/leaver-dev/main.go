// Command leaver-dev is the whole of leaver on one machine: private
// PostgreSQL, a real Temporal server with its UI, the API, a worker,
// downstream systems; and the drill that takes a person through all of it.
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
	// The OpenID provider logs each refusal to the default logger; refusals are
	// what the drill is after, and the console is for people.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// exitSurvivors is the exit code when something outlived the cascade.
const exitSurvivors = 5

// errSurvived says that the drill found something alive.
var errSurvived = errors.New("something survived the cascade")

type options struct {
	once, ephemeral, noInstall bool
	data, listen               string
	temporalPort, uiPort       int
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	root := &cobra.Command{
		Use:   "leaver-dev",
		Short: "Run the whole stack and drill a deactivation through it",
		Args:  cobra.NoArgs, SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return develop(cmd.Context(), o, newConsole(stdout, stderr))
		},
	}
	f := root.Flags()
	f.BoolVar(&o.once, "once", false, "exit after the drill: 0 when all is dead, 5 when something survived")
	f.BoolVar(&o.ephemeral, "ephemeral", false, "keep nothing: Temporal in memory, the rest in a temporary folder")
	f.BoolVar(&o.noInstall, "no-install", false, "do not install PostgreSQL where it is missing")
	f.StringVar(&o.data, "data", "", "folder of all data (default: the user's state folder)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "address of SCIM and the API; port 0 is a free one")
	f.IntVar(&o.temporalPort, "temporal-port", 0, "port of Temporal; 0 is a free one")
	f.IntVar(&o.uiPort, "ui-port", 0, "port of Temporal's UI; 0 is a free one")
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

// console is where a person, or a pipe, follows.
type console struct {
	out      io.Writer
	err      io.Writer
	terminal bool
}

func newConsole(out, err io.Writer) *console {
	file, ok := out.(*os.File)
	return &console{out: out, err: err, terminal: ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == ""}
}

// say writes a line.
func (c *console) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.out, format+"\n", args...)
}

// note writes a line about what goes on behind the scenes.
func (c *console) note(format string, args ...any) {
	_, _ = fmt.Fprintf(c.err, "· "+format+"\n", args...)
}

// live overwrites the terminal's current line; a pipe sees nothing of it.
func (c *console) live(format string, args ...any) {
	if c.terminal {
		_, _ = fmt.Fprintf(c.out, "\r\x1b[K"+format, args...)
	}
}
