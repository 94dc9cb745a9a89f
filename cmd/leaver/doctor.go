package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/app"
	"github.com/leaverhq/leaver/internal/config"
)

func (c *cli) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Args: cobra.NoArgs,
		Short: "Find what is wrong with the installation, root causes first, and print how to fix it",
		Long: "Doctor reads the configuration as serve and worker do, and asks PostgreSQL, Temporal and the connectors.\n" +
			"It reports a root cause without its consequences, and exits with code 1 if it finds a problem.",
		RunE: c.withApp(func(ctx context.Context, _ *config.Config, a *app.App) error {
			problems := a.Diagnose(ctx)
			var rows [][]string
			for _, p := range problems {
				rows = append(rows, []string{p.Code, string(p.Severity), p.Text, p.Fix})
			}
			if err := c.print(problems, []string{"CODE", "SEVERITY", "PROBLEM", "FIX"}, rows); err != nil {
				return err
			}
			if len(problems) > 0 {
				return coded(exitError, "%d problems were found", len(problems))
			}
			return nil
		}),
	}
}
