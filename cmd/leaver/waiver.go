package main

import (
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/cascade"
)

func (c *cli) waiverCommand() *cobra.Command {
	group := &cobra.Command{Use: "waiver", Short: "List, approve and decline waivers that need an approver"}
	path := ofTenant(group)
	group.AddCommand(&cobra.Command{
		Use: "list", Short: "List the waivers that wait for an approver, oldest first", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			open, err := all[cascade.Waiver](cmd.Context(), cl, path("/waivers"), url.Values{"limit": {"500"}}, 0)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, w := range open {
				rows = append(rows, []string{
					w.ID.String(), string(w.Kind) + " " + w.Reference, w.Connector, stamp(&w.Until), w.RequestedBy,
					stamp(&w.RequestedAt), w.Reason,
				})
			}
			return c.print(open, []string{"ID", "WHAT", "WHERE", "UNTIL", "REQUESTED BY", "AT", "REASON"}, rows)
		}),
	}, c.decideWaiver(path, "approve", "Approve a waiver; requires an approver's token"),
		c.decideWaiver(path, "decline", "Decline a waiver; requires an approver's token"))
	return group
}

func (c *cli) decideWaiver(path func(string) string, verb, short string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: verb + " ID", Short: short, Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			if reason == "" {
				return coded(exitUsage, "--reason is required; it is recorded in the audit log")
			}
			return cl.do(cmd.Context(), http.MethodPost, path("/waivers/"+url.PathEscape(args[0])+"/"+verb),
				map[string]string{"reason": reason}, nil)
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	return cmd
}
