package main

import (
	"bytes"
	"cmp"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/credential"
)

func (c *cli) credentialCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "credential", Short: "List, import, correct and release credentials, and claim unmanaged ones",
	}
	path := ofTenant(group)
	var principal, agent, connector, state string
	list := &cobra.Command{
		Use: "list", Short: "List credentials and scheduled runs of a tenant", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			query := url.Values{
				"principal": {principal}, "agent": {agent}, "connector": {connector}, "state": {state}, "limit": {"500"},
			}
			items, err := all[api.ShownItem](cmd.Context(), cl, path("/credentials"), query, 0)
			if err != nil {
				return err
			}
			return c.print(items, itemHeader, itemRows(items))
		}),
	}
	list.Flags().StringVar(&principal, "principal", "",
		"list only credentials of this principal or agent (name or SCIM id)")
	list.Flags().StringVar(&agent, "agent", "", "list only credentials that this agent holds (name or SCIM id)")
	list.Flags().StringVar(&connector, "connector", "", "list only credentials at this connector")
	list.Flags().StringVar(&state, "state", "",
		"list only credentials in these states, comma-separated, e.g. failed,ending")
	group.AddCommand(list, c.credentialShow(path), c.credentialImport(path), c.credentialUnmanaged(path),
		c.credentialClaim(path), c.credentialCorrect(path), c.credentialRelease(path))
	return group
}

var itemHeader = []string{"ID", "PRINCIPAL", "AGENT", "KIND", "CONNECTOR", "REFERENCE", "STATE", "REASON", "UPDATED"}

func itemRows(items []api.ShownItem) [][]string {
	var rows [][]string
	for _, i := range items {
		rows = append(rows, []string{
			i.ID.String(), cmp.Or(i.PrincipalName, i.Principal.String()), cmp.Or(i.AgentName, optional(i.Agent)), string(i.Kind),
			i.Connector, i.Reference, string(i.State), i.Reason, stamp(&i.UpdatedAt),
		})
	}
	return rows
}

func (c *cli) credentialShow(path func(string) string) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a credential or scheduled run with the history of its states", Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			var item struct {
				api.ShownItem
				History []credential.StateChange `json:"history"`
			}
			if err := cl.do(cmd.Context(), http.MethodGet, path("/credentials/"+url.PathEscape(args[0])), nil,
				&item); err != nil {
				return err
			}
			if c.output == "json" {
				return c.print(item, nil, nil)
			}
			if err := c.print(nil, itemHeader, itemRows([]api.ShownItem{item.ShownItem})); err != nil {
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
	var check, skipExisting bool
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Register the credentials and scheduled runs in an NDJSON file: all of them, or none",
		Args: cobra.ExactArgs(1),
		Long: "Each line is a request body of POST /v1/credentials; the members principal and agent " +
			"may give names instead of ids.\nIf any line is invalid, all invalid lines are listed and nothing is registered.",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			raw, err := os.ReadFile(args[0])
			if err != nil {
				return coded(exitUsage, "read the file: %w", err)
			}
			cl.lines = bytes.Split(raw, []byte("\n"))
			var answer struct {
				Registered int `json:"registered"`
				Skipped    int `json:"skipped"`
				Good       int `json:"good,omitempty"`
			}
			query := url.Values{"check": {strconv.FormatBool(check)}, "skipExisting": {strconv.FormatBool(skipExisting)}}
			if err := cl.send(cmd.Context(), http.MethodPost, path("/import?"+query.Encode()), "application/x-ndjson",
				bytes.NewReader(raw), &answer); err != nil {
				return err
			}
			return c.print(answer, []string{"REGISTERED", "SKIPPED", "GOOD"},
				[][]string{{itoa(answer.Registered), itoa(answer.Skipped), itoa(answer.Good)}})
		}),
	}
	cmd.Flags().BoolVar(&check, "check", false,
		"check with each downstream that the credentials exist, and register nothing")
	cmd.Flags().BoolVar(&skipExisting, "skip-existing", false, "skip lines that are already registered")
	return cmd
}

// credentialCorrect returns the command that replaces a registration with a wrong reference.
func (c *cli) credentialCorrect(path func(string) string) *cobra.Command {
	var reference, secretFile, reason string
	cmd := &cobra.Command{
		Use: "correct ID", Short: "Correct the reference of a registration that is live or survived a cascade",
		Args: cobra.ExactArgs(1),
		Example: `  leaver credential correct 019… --tenant acme --reference ada/mail-client ` +
			`--reason "the subject alone names no grant"`,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			if reference == "" || reason == "" {
				return coded(exitUsage, "--reference and --reason are required")
			}
			body := map[string]string{"reference": reference, "reason": reason}
			if secretFile != "" {
				raw, err := os.ReadFile(secretFile)
				if err != nil {
					return coded(exitUsage, "read the secret: %w", err)
				}
				body["secret"] = strings.TrimRight(string(raw), "\r\n")
			}
			var item api.ShownItem
			if err := cl.do(cmd.Context(), http.MethodPost, path("/credentials/"+url.PathEscape(args[0])+"/correct"), body,
				&item); err != nil {
				return err
			}
			return c.print(item, itemHeader, itemRows([]api.ShownItem{item}))
		}),
	}
	cmd.Flags().StringVar(&reference, "reference", "",
		"the downstream's name for the credential; see docs/CONNECTORS.md for its format")
	cmd.Flags().StringVar(&secretFile, "secret-file", "", "file with the credential's secret, if it has one")
	cmd.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	return cmd
}

// credentialRelease returns the command that removes a registration.
func (c *cli) credentialRelease(path func(string) string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "release ID",
		Short: "Release a registration with a wrong reference; leaver does not revoke the intended credential",
		Args:  cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			if reason == "" {
				return coded(exitUsage, "--reason is required; it is recorded in the audit log")
			}
			var item api.ShownItem
			if err := cl.do(cmd.Context(), http.MethodPost, path("/credentials/"+url.PathEscape(args[0])+"/release"),
				map[string]string{"reason": reason}, &item); err != nil {
				return err
			}
			return c.print(item, itemHeader, itemRows([]api.ShownItem{item}))
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	return cmd
}

func (c *cli) credentialUnmanaged(path func(string) string) *cobra.Command {
	return &cobra.Command{
		Use: "unmanaged", Short: "List unmanaged credentials, which connectors discovered and no client registered",
		Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			found, err := all[credential.Unmanaged](cmd.Context(), cl, path("/unmanaged"), url.Values{"limit": {"500"}}, 0)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, u := range found {
				of := optional(u.Label)
				if u.Restricted {
					of += " (restricted)"
				}
				rows = append(rows, []string{
					u.ID.String(), string(u.Kind), u.Connector, u.Reference, of, cmp.Or(strings.Join(u.Scopes, " "), "-"),
					stamp(&u.SeenAt),
				})
			}
			return c.print(found, []string{"ID", "KIND", "CONNECTOR", "REFERENCE", "LABELLED", "SCOPES", "SEEN"}, rows)
		}),
	}
}

func (c *cli) credentialClaim(path func(string) string) *cobra.Command {
	var principal, agent, reason string
	cmd := &cobra.Command{
		Use:   "claim ID",
		Short: "Claim an unmanaged credential for a principal; if the principal has left, the credential is ended at once",
		Args:  cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			if principal == "" || reason == "" {
				return coded(exitUsage, "--principal and --reason are required")
			}
			id, err := principalID(cmd, cl, path, principal)
			if err != nil {
				return err
			}
			body := map[string]string{"principalId": id, "reason": reason}
			if agent != "" {
				if body["agentId"], err = principalID(cmd, cl, path, agent); err != nil {
					return err
				}
			}
			var claimed struct {
				api.ShownItem
				Cascade *uuid.UUID `json:"startedCascadeId,omitempty"`
			}
			if err := cl.do(cmd.Context(), http.MethodPost, path("/unmanaged/"+url.PathEscape(args[0])+"/claim"), body,
				&claimed); err != nil {
				return err
			}
			return c.print(claimed, append([]string{"STARTED CASCADE"}, itemHeader...),
				[][]string{append([]string{optional(claimed.Cascade)}, itemRows([]api.ShownItem{claimed.ShownItem})[0]...)})
		}),
	}
	cmd.Flags().StringVar(&principal, "principal", "", "the principal that owns the credential (name or SCIM id)")
	cmd.Flags().StringVar(&agent, "agent", "", "the agent that holds the credential (name or SCIM id)")
	cmd.Flags().StringVar(&reason, "reason", "",
		"how the owner is known; it is recorded in the audit log with your token's id")
	return cmd
}
