// Command temporal-dev runs a Temporal server with SQLite persistence and the
// Web UI in one binary. It accepts the flags of `temporal server start-dev`, so
// that testsuite.StartDevServer can start it too.
//
// It is a separate module because the server has more than two hundred
// dependencies that the product must never require.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newRootCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "temporal-dev:", err)
		stop()
		os.Exit(1)
	}
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "temporal-dev",
		Short:         "Run a Temporal server with SQLite and its Web UI, for development and tests",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	server := &cobra.Command{Use: "server", Short: "Run the server"}
	server.AddCommand(newStartDevCommand())
	root.AddCommand(server)
	return root
}

func newStartDevCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "start-dev",
		Short: "Start the server and the Web UI, and run until interrupted",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.IP, "ip", "127.0.0.1", "address of the frontend")
	f.IntVarP(&o.Port, "port", "p", 7233, "port of the frontend (gRPC)")
	f.StringVar(&o.UIIP, "ui-ip", "", "address of the Web UI (default: that of --ip)")
	f.IntVar(&o.UIPort, "ui-port", 0, "port of the Web UI (default: --port + 1000)")
	f.StringVar(&o.UICodecEndpoint, "ui-codec-endpoint", "",
		"URL of the codec server that the Web UI asks to decode payloads")
	f.BoolVar(&o.Headless, "headless", false, "do not start the Web UI")
	f.StringVarP(&o.DBFilename, "db-filename", "f", "", "SQLite file (default: in memory)")
	f.StringArrayVarP(&o.Namespaces, "namespace", "n", nil,
		"namespace to create; repeatable (\"default\" is always created)")
	f.StringArrayVar(&o.SearchAttributes, "search-attribute", nil,
		"custom search attribute KEY=TYPE, in every created namespace; repeatable")
	f.StringArrayVar(&o.DynamicConfig, "dynamic-config-value", nil, "dynamic config KEY=JSON; repeatable")
	f.StringVar(&o.LogLevel, "log-level", "error", "log level: debug, info, warn, error or never")
	f.StringVar(&o.LogFormat, "log-format", "text", "log format: text or json")
	return cmd
}
