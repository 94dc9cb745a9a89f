package main

import (
	"cmp"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/inventory"
)

func (c *cli) credentialCommand() *cobra.Command {
	group := &cobra.Command{Use: "credential", Short: "See what agents hold, import it, bind what nobody registered"}
	path := ofTenant(group)
	var principal, state string
	list := &cobra.Command{
		Use: "list", Short: "List credentials and scheduled runs of a tenant", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			query := url.Values{"principal": {principal}, "state": {state}, "limit": {"500"}}
			items, err := all[inventory.Item](cmd.Context(), cl, path("/inventory"), query, 0)
			if err != nil {
				return err
			}
			return c.print(items, itemHeader, itemRows(items))
		}),
	}
	list.Flags().StringVar(&principal, "principal", "", "only what this principal holds (SCIM id)")
	list.Flags().StringVar(&state, "state", "", "only items of this state, e.g. survivor")
	group.AddCommand(list, c.credentialShow(path), c.credentialImport(path), c.credentialUnbound(path), c.credentialBind(path))
	return group
}

var itemHeader = []string{"ID", "KIND", "CONNECTOR", "REFERENCE", "STATE", "REASON", "UPDATED"}

func itemRows(items []inventory.Item) [][]string {
	var rows [][]string
	for _, i := range items {
		rows = append(rows, []string{i.ID.String(), string(i.Kind), i.Connector, i.Reference, string(i.State), i.Reason, stamp(&i.UpdatedAt)})
	}
	return rows
}

func (c *cli) credentialShow(path func(string) string) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show one with the history of its states", Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			var item struct {
				inventory.Item
				History []inventory.StateChange `json:"history"`
			}
			if err := cl.do(cmd.Context(), http.MethodGet, path("/inventory/"+url.PathEscape(args[0])), nil, &item); err != nil {
				return err
			}
			if c.output == "json" {
				return c.print(item, nil, nil)
			}
			if err := c.print(nil, itemHeader, itemRows([]inventory.Item{item.Item})); err != nil {
				return err
			}
			var rows [][]string
			for _, h := range item.History {
				rows = append(rows, []string{stamp(&h.At), string(h.State), optional(h.Event), cmp.Or(h.Actor, "-"), h.Reason})
			}
			return c.print(nil, []string{"AT", "STATE", "CASCADE", "ACTOR", "REASON"}, rows)
		}),
	}
}

func optional(id *uuid.UUID) string {
	if id == nil {
		return "-"
	}
	return id.String()
}

func (c *cli) credentialImport(path func(string) string) *cobra.Command {
	return &cobra.Command{
		Use: "import FILE", Short: "Register what a file of NDJSON lists: all of it, or none", Args: cobra.ExactArgs(1),
		Long: "Each line is a registration as POST /v1/credentials takes it. Where any line is bad, each bad one is told and nothing is registered.",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			file, err := os.Open(args[0])
			if err != nil {
				return coded(exitUsage, "read the file: %w", err)
			}
			defer func() { _ = file.Close() }()
			var answer struct {
				Registered int `json:"registered"`
			}
			if err := cl.send(cmd.Context(), http.MethodPost, path("/import"), "application/x-ndjson", file, &answer); err != nil {
				return err
			}
			return c.print(answer, []string{"REGISTERED"}, [][]string{{itoa(answer.Registered)}})
		}),
	}
}

func (c *cli) credentialUnbound(path func(string) string) *cobra.Command {
	return &cobra.Command{
		Use: "unbound", Short: "List what connectors found and nobody registered", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			found, err := all[inventory.Unbound](cmd.Context(), cl, path("/unbound"), url.Values{"limit": {"500"}}, 0)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, u := range found {
				of := optional(u.Label)
				if u.Restricted {
					of += " (gone)"
				}
				rows = append(rows, []string{u.ID.String(), string(u.Kind), u.Connector, u.Reference, of, cmp.Or(strings.Join(u.Scopes, " "), "-"), stamp(&u.SeenAt)})
			}
			return c.print(found, []string{"ID", "KIND", "CONNECTOR", "REFERENCE", "LABELLED", "SCOPES", "SEEN"}, rows)
		}),
	}
}

func (c *cli) credentialBind(path func(string) string) *cobra.Command {
	var principal, agent, reason string
	cmd := &cobra.Command{
		Use: "bind ID", Short: "Make something unbound a principal's; what somebody left behind is ended at once", Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			if principal == "" || reason == "" {
				return coded(exitUsage, "--principal and --reason are needed")
			}
			body := map[string]string{"principalId": principal, "reason": reason}
			if agent != "" {
				body["agentId"] = agent
			}
			var bound struct {
				inventory.Item
				Cascade *uuid.UUID `json:"startedCascadeId,omitempty"`
			}
			if err := cl.do(cmd.Context(), http.MethodPost, path("/unbound/"+url.PathEscape(args[0])+"/bind"), body, &bound); err != nil {
				return err
			}
			return c.print(bound, append([]string{"STARTED CASCADE"}, itemHeader...), [][]string{append([]string{optional(bound.Cascade)}, itemRows([]inventory.Item{bound.Item})[0]...)})
		}),
	}
	cmd.Flags().StringVar(&principal, "principal", "", "whose it is (SCIM id)")
	cmd.Flags().StringVar(&agent, "agent", "", "the agent that holds it (SCIM id)")
	cmd.Flags().StringVar(&reason, "reason", "", "how the owner is known; it is recorded in the audit log with your token's id")
	return cmd
}
