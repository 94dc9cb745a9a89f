package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/api"
)

func (c *cli) consoleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "console", Args: cobra.NoArgs,
		Short: "Print a link that signs a browser in to the console, once and within 5 minutes",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			var link api.SignIn
			if err := cl.do(cmd.Context(), http.MethodPost, "/sign-ins", nil, &link); err != nil {
				return err
			}
			return c.print(link, []string{"URL", "EXPIRES"}, [][]string{{link.URL, stamp(&link.ExpiresAt)}})
		}),
	}
}
