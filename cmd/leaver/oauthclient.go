package main

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/auth"
)

func (c *cli) clientCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "client", Short: "Manage a tenant's OAuth clients, which request short-lived tokens with a key of their own",
	}
	path := ofTenant(group)
	group.AddCommand(c.clientAdd(path), &cobra.Command{
		Use: "list", Short: "List OAuth clients", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			clients, err := all[auth.Client](cmd.Context(), cl, path("/clients"), url.Values{}, 0)
			if err != nil {
				return err
			}
			return c.printClients(clients, clients...)
		}),
	}, &cobra.Command{
		Use: "remove ID", Short: "Remove an OAuth client with its tokens; `leaver client list` shows the ID",
		Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			return cl.do(cmd.Context(), http.MethodDelete, path("/clients/"+url.PathEscape(args[0])), nil, nil)
		}),
	})
	return group
}

func (c *cli) clientAdd(path func(string) string) *cobra.Command {
	var body auth.Client
	var scopes []string
	var keys string
	cmd := &cobra.Command{
		Use: "add", Short: "Add an OAuth client; its ID is the client_id", Args: cobra.NoArgs,
		Example: "  leaver client add --tenant acme --scope scim --jwks-url https://id.example.com/keys\n" +
			"  leaver client add --tenant acme --scope ssf.manage --jwks public-keys.json",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			request := map[string]any{"description": body.Description, "scopes": scopes, "issuer": body.Issuer}
			if body.JWKSURL != "" {
				request["jwksUrl"] = body.JWKSURL
			}
			if keys != "" {
				raw, err := os.ReadFile(keys)
				if err != nil {
					return coded(exitUsage, "read the public keys: %w", err)
				}
				if !json.Valid(raw) {
					return coded(exitUsage, "%s is not JSON: write a JWK set (RFC 7517), {\"keys\": […]}", keys)
				}
				request["jwks"] = json.RawMessage(raw)
			}
			var added auth.Client
			if err := cl.do(cmd.Context(), http.MethodPost, path("/clients"), request, &added); err != nil {
				return err
			}
			return c.printClients(added, added)
		}),
	}
	cmd.Flags().StringVar(&body.Description, "description", "", "purpose of the client")
	cmd.Flags().StringSliceVar(&scopes, "scope", nil,
		"what the client may do: scim, authzen (decisions, introspection), ssf.read, ssf.manage (required)")
	cmd.Flags().StringVar(&body.JWKSURL, "jwks-url", "", "https URL of the client's JWK set")
	cmd.Flags().StringVar(&keys, "jwks", "", "file with the client's JWK set, of public keys only")
	cmd.Flags().StringVar(&body.Issuer, "issuer", "",
		"for the scope authzen: the issuer (iss) of the tokens that the client sees; their claims are looked up as its names")
	cmd.MarkFlagsMutuallyExclusive("jwks-url", "jwks")
	cmd.MarkFlagsOneRequired("jwks-url", "jwks")
	return cmd
}

func (c *cli) printClients(body any, clients ...auth.Client) error {
	var rows [][]string
	for _, cl := range clients {
		scopes := make([]string, len(cl.Scopes))
		for i, scope := range cl.Scopes {
			scopes[i] = string(scope)
		}
		rows = append(rows, []string{
			cl.ID.String(), cl.Description, strings.Join(scopes, ","), cmp.Or(cl.JWKSURL, "stored"), cl.Issuer,
			stamp(&cl.CreatedAt), stamp(cl.LastUsedAt), cl.CreatedBy,
		})
	}
	return c.print(body,
		[]string{"ID", "DESCRIPTION", "SCOPES", "KEYS", "ISSUER", "CREATED", "LAST USED", "CREATED BY"}, rows)
}
