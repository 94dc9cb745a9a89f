package main

import (
	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/app"
)

func (c *cli) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check the configuration"}
	cmd.AddCommand(&cobra.Command{
		Use: "check", Short: "Check the file, the variables, the key set, the connectors, PostgreSQL and Temporal",
		Args: cobra.NoArgs,
		Long: "Check reads the configuration as serve and worker do, connects to PostgreSQL and Temporal, " +
			"and changes nothing.\nIt prints one line for each part, and exits with code 1 if a check fails.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, log, err := c.loadWithLog()
			if err != nil {
				return err
			}
			findings := app.Check(cmd.Context(), cfg, log)
			var rows [][]string
			wrong := 0
			for _, f := range findings {
				state := "ok"
				if !f.OK {
					state, wrong = "failed", wrong+1
				}
				rows = append(rows, []string{f.Part, state, f.Detail})
			}
			if err := c.print(findings, []string{"PART", "STATE", "DETAIL"}, rows); err != nil {
				return err
			}
			if wrong > 0 {
				return coded(exitError, "%d of %d checks failed", wrong, len(findings))
			}
			return nil
		},
	})
	return cmd
}
