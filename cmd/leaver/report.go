package main

import (
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/report"
)

func (c *cli) evidenceReport() *cobra.Command {
	var of, out string
	cmd := &cobra.Command{
		Use: "report NAME|ID", Args: cobra.ExactArgs(1),
		Short: "Write an HTML report about one principal: what was ended, how its death was proven, what was not",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			id, err := principalID(cmd, cl, func(p string) string { return tenantPath(of) + p }, args[0])
			if err != nil {
				return err
			}
			r, err := report.Read(cmd.Context(), cl.Client, of, uuid.MustParse(id), args[0])
			if err != nil {
				return cl.coded(err)
			}
			return c.toFile(out, r.Write)
		}),
	}
	tenantFlag(cmd, &of)
	cmd.Flags().StringVar(&out, "out", "", "file to create (default: stdout)")
	return cmd
}
