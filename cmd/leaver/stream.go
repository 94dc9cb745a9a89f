package main

import (
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/api"
)

func (c *cli) streamCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "stream", Short: "List and assign streams of security events; receivers manage them through the API",
	}
	path := ofTenant(group)
	group.AddCommand(&cobra.Command{
		Use: "list", Short: "List streams with their pending events and the receivers' last errors", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			streams, err := all[api.StreamView](cmd.Context(), cl, path("/streams"), url.Values{}, 0)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, s := range streams {
				oldest := "-"
				if s.Oldest != nil {
					oldest = time.Since(*s.Oldest).Round(time.Second).String()
				}
				rows = append(rows, []string{
					s.ID.String(), s.Method, s.Endpoint, string(s.Status), itoa(s.Waiting), oldest, itoa(s.Refused), itoa(s.Expired),
					s.LastError,
				})
			}
			return c.print(streams,
				[]string{"ID", "METHOD", "ENDPOINT", "STATUS", "WAITING", "OLDEST", "REFUSED", "EXPIRED", "LAST ERROR"}, rows)
		}),
	})
	var token, oauthClient string
	assign := &cobra.Command{
		Use: "assign ID", Short: "Assign a stream to another token of class receiver, or to a client",
		Args: cobra.ExactArgs(1),
		Example: "  leaver stream assign 019… --tenant acme --token 019…   " +
			"# IDs from `leaver stream list` and `leaver token list`",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			owner := map[string]string{"tokenId": token}
			if oauthClient != "" {
				owner = map[string]string{"clientId": oauthClient}
			}
			return cl.do(cmd.Context(), http.MethodPost, path("/streams/"+url.PathEscape(args[0])+"/assign"),
				owner, nil)
		}),
	}
	assign.Flags().StringVar(&token, "token", "", "the id of the token of class receiver to assign the stream to")
	assign.Flags().StringVar(&oauthClient, "client", "", "the id of the OAuth client to assign the stream to")
	assign.MarkFlagsMutuallyExclusive("token", "client")
	assign.MarkFlagsOneRequired("token", "client")
	group.AddCommand(assign)
	return group
}
