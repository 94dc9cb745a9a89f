package main

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/tenant"
)

// ofTenant adds the required flag --tenant to a group, and returns a function that prepends the
// tenant's path to a path.
func ofTenant(group *cobra.Command) func(path string) string {
	var of string
	group.PersistentFlags().StringVar(&of, "tenant", "", "name or ID of the tenant (required)")
	if err := group.MarkPersistentFlagRequired("tenant"); err != nil {
		panic(err) // the flag is defined above
	}
	return func(path string) string { return "/tenants/" + url.PathEscape(of) + path }
}

func (c *cli) issuerCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "issuer", Short: "Manage the JWT issuers that a tenant trusts, for SCIM, revocation, events and gateways",
	}
	path := ofTenant(group)
	var body auth.Issuer
	var uses []string
	add := &cobra.Command{
		Use: "add ISSUER", Short: "Trust an issuer's JWTs", Args: cobra.ExactArgs(1),
		Example: "  leaver issuer add https://id.example.com --tenant acme --audience leaver " +
			"--jwks-url https://id.example.com/keys --subject provisioner",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			var added auth.Issuer
			request := map[string]any{
				"issuer": args[0], "audience": body.Audience, "jwksUrl": body.JWKSURL, "subjects": body.Subjects, "uses": uses,
				"introspectionUrl": body.IntrospectionURL,
			}
			if err := cl.do(cmd.Context(), http.MethodPost, path("/issuers"), request, &added); err != nil {
				return err
			}
			return c.printIssuers(added, added)
		}),
	}
	add.Flags().StringVar(&body.Audience, "audience", "", "the aud claim (required)")
	add.Flags().StringVar(&body.JWKSURL, "jwks-url", "", "https URL of the issuer's JWK set (required)")
	add.Flags().StringSliceVar(&body.Subjects, "subject", nil,
		"accept only tokens with this sub, azp, appid or client_id claim (default: any token with the audience)")
	add.Flags().StringVar(&body.IntrospectionURL, "introspection-url", "",
		"for the use access: https URL where the issuer answers whether a token is active (RFC 7662)")
	add.Flags().StringSliceVar(&uses, "use", nil,
		"uses of the tokens: scim (the default; cannot be combined), revocation (requires --subject), events, access")
	list := &cobra.Command{
		Use: "list", Short: "List trusted issuers", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			issuers, err := all[auth.Issuer](cmd.Context(), cl, path("/issuers"), url.Values{}, 0)
			if err != nil {
				return err
			}
			return c.printIssuers(issuers, issuers...)
		}),
	}
	remove := &cobra.Command{
		Use: "remove ID", Short: "Stop trusting an issuer; `leaver issuer list` shows the ID", Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			return cl.do(cmd.Context(), http.MethodDelete, path("/issuers/"+url.PathEscape(args[0])), nil, nil)
		}),
	}
	group.AddCommand(add, list, remove)
	return group
}

func (c *cli) printIssuers(body any, issuers ...auth.Issuer) error {
	var rows [][]string
	for _, i := range issuers {
		rows = append(rows, []string{
			i.ID.String(), i.Issuer, i.Audience, i.JWKSURL, cmp.Or(strings.Join(i.Subjects, ","), "any"), joined(i.Uses),
			cmp.Or(i.IntrospectionURL, "-"),
		})
	}
	return c.print(body, []string{"ID", "ISSUER", "AUDIENCE", "KEYS", "SUBJECTS", "FOR", "INTROSPECTION"}, rows)
}

func joined(uses []auth.Use) string {
	texts := make([]string, len(uses))
	for i, use := range uses {
		texts[i] = string(use)
	}
	return strings.Join(texts, ",")
}

func (c *cli) schemaCommand() *cobra.Command {
	group := &cobra.Command{Use: "schema", Short: "Manage a tenant's custom SCIM schemas"}
	path := ofTenant(group)
	var resourceType string
	apply := &cobra.Command{
		Use: "apply FILE", Short: "Create a custom schema (RFC 7643 section 7, JSON), or add attributes to it",
		Args:    cobra.ExactArgs(1),
		Example: "  leaver schema apply claims.json --tenant acme --resource-type User",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			raw, err := os.ReadFile(args[0])
			if err != nil {
				return coded(exitUsage, "read the schema: %w", err)
			}
			var schema struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal(raw, &schema); err != nil {
				return coded(exitUsage, "%s is not JSON: %w", args[0], err)
			}
			var declared tenant.Schema
			request := map[string]any{"resourceType": resourceType, "schema": json.RawMessage(raw)}
			if err := cl.do(cmd.Context(), http.MethodPut, path("/schemas/"+url.PathEscape(schema.ID)), request,
				&declared); err != nil {
				return err
			}
			return c.printSchemas(declared, declared)
		}),
	}
	apply.Flags().StringVar(&resourceType, "resource-type", "User", "User, Group or Agent")
	list := &cobra.Command{
		Use: "list", Short: "List custom schemas", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			schemas, err := all[tenant.Schema](cmd.Context(), cl, path("/schemas"), url.Values{}, 0)
			if err != nil {
				return err
			}
			return c.printSchemas(schemas, schemas...)
		}),
	}
	remove := &cobra.Command{
		Use: "delete URN", Short: "Delete a custom schema that no resource uses", Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			return cl.do(cmd.Context(), http.MethodDelete, path("/schemas/"+url.PathEscape(args[0])), nil, nil)
		}),
	}
	group.AddCommand(apply, list, remove)
	return group
}

func (c *cli) printSchemas(body any, schemas ...tenant.Schema) error {
	var rows [][]string
	for _, s := range schemas {
		rows = append(rows, []string{s.URN, s.ResourceType})
	}
	return c.print(body, []string{"URN", "RESOURCE TYPE"}, rows)
}

func (c *cli) changeCommand() *cobra.Command {
	group := &cobra.Command{Use: "change", Short: "Show the directory's audit trail"}
	path := ofTenant(group)
	var resource string
	var limit int
	list := &cobra.Command{
		Use: "list", Short: "List changes of the directory with their actors, newest first", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			query := url.Values{}
			if resource != "" {
				id, err := principalID(cmd, cl, path, resource)
				if err != nil {
					return err
				}
				query.Set("resource", id)
			}
			changes, err := all[audit.Change](cmd.Context(), cl, path("/changes"), query, limit)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, ch := range changes {
				rows = append(rows, []string{
					stamp(&ch.At), ch.Type, ch.Resource.String(), strconv.FormatInt(ch.Version, 10), ch.Trigger,
					strings.Join(ch.Changed, ","), strings.Join(ch.Ignored, "; "), ch.Actor,
				})
			}
			return c.print(changes, []string{"AT", "TYPE", "RESOURCE", "VERSION", "BY", "CHANGED", "IGNORED", "ACTOR"}, rows)
		}),
	}
	list.Flags().StringVar(&resource, "resource", "",
		"list only changes of this resource: a SCIM id, or the name of a user or agent")
	list.Flags().IntVar(&limit, "limit", 100, "maximum number of changes to list; 0 lists all")
	group.AddCommand(list)
	return group
}

// withClient creates an API client and calls run with it.
func (c *cli) withClient(run func(*cobra.Command, *client, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cl, err := c.client()
		if err != nil {
			return err
		}
		return run(cmd, cl, args)
	}
}
