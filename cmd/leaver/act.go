package main

import (
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/audit"
)

// actCommand returns the commands that read the audit log of the installation or of a tenant.
func (c *cli) actCommand() *cobra.Command {
	group := &cobra.Command{Use: "act", Short: "Show the audit log of administrative acts by operators and approvers"}
	var of string
	list := &cobra.Command{
		Use: "list", Args: cobra.NoArgs,
		Short: "List administrative acts with actor, verb, object, and state before and after, oldest first",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			path := "/acts"
			if of != "" {
				path = tenantPath(of) + path
			}
			acts, err := all[audit.Act](cmd.Context(), cl, path, url.Values{"limit": {"500"}}, 0)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, a := range acts {
				rows = append(rows,
					[]string{strconv.FormatInt(a.ID, 10), stamp(&a.At), a.Actor, a.Verb, a.Object, string(a.Before), string(a.After)})
			}
			return c.print(acts, []string{"ID", "AT", "ACTOR", "VERB", "OBJECT", "BEFORE", "AFTER"}, rows)
		}),
	}
	list.Flags().StringVar(&of, "tenant", "", "list the acts of this tenant; by default, those of the installation")
	group.AddCommand(list)
	return group
}
