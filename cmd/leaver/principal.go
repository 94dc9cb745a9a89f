package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/directory"
)

func itoa(n int) string { return strconv.Itoa(n) }

func (c *cli) principalCommand() *cobra.Command {
	group := &cobra.Command{Use: "principal", Short: "Show, end, restore and erase principals"}
	path := ofTenant(group)
	var dryRun, wait bool
	var reason string
	var timeout time.Duration
	end := &cobra.Command{
		Use: "end NAME|ID", Short: "Deactivate a User or an Agent as its IdP would", Args: cobra.ExactArgs(1),
		Example: `  leaver principal end ada@example.com --tenant acme --dry-run
  leaver principal end ada@example.com --tenant acme --reason "laptop stolen; INC-17" --wait`,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			id, err := toChange(cmd, cl, path, args[0], reason, dryRun)
			if err != nil {
				return err
			}
			if dryRun {
				return c.planOf(cmd, cl, path("/principals/"+id+"/plan"))
			}
			var started struct {
				Cascade  string `json:"cascadeId"`
				Workflow string `json:"workflowId"`
			}
			if err := cl.do(cmd.Context(), http.MethodPost, path("/principals/"+id+"/end"), map[string]string{"reason": reason},
				&started); err != nil {
				return err
			}
			if !wait {
				return c.print(started, []string{"CASCADE", "WORKFLOW"}, [][]string{{started.Cascade, started.Workflow}})
			}
			cascade, err := c.wait(cmd, cl, path("/cascades/"+started.Cascade), timeout)
			if err != nil {
				return err
			}
			if err := c.print(cascade, cascadeHeader, cascadeRows(cascade)); err != nil {
				return err
			}
			return exitOf(cascade, cmd.Flag("tenant").Value.String())
		}),
	}
	end.Flags().BoolVar(&dryRun, "dry-run", false,
		"print the credentials that would be ended, in order, the agents orphaned, and what cannot be verified; end nothing")
	end.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	end.Flags().BoolVar(&wait, "wait", false, "wait until the cascade closes")
	end.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait")
	group.AddCommand(c.principalShow(path), end, c.principalRestore(path), c.principalErase(path))
	return group
}

// principalErase returns the command that erases what names a deleted principal.
func (c *cli) principalErase(path func(string) string) *cobra.Command {
	var reason string
	erase := &cobra.Command{
		Use: "erase ID", Args: cobra.ExactArgs(1),
		Short: "Erase the names, references and texts of the evidence of a deleted User; requires an approver's token",
		Long: "Erase the names, attributes, references, and the texts of the evidence of a User whom the IdP has deleted\n" +
			"at least 30 days ago, and whose credentials are ended. The chain of evidence stays verifiable.\n" +
			"This cannot be undone.",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			if reason == "" {
				return coded(exitUsage, "--reason is required; it is recorded in the evidence")
			}
			var erased struct {
				Records int `json:"records"`
			}
			err := cl.do(cmd.Context(), http.MethodPost, path("/principals/"+url.PathEscape(args[0])+"/erase"),
				map[string]string{"reason": reason}, &erased)
			if err != nil {
				return err
			}
			return c.print(erased, []string{"RECORDS WITHOUT TEXTS"}, [][]string{{strconv.Itoa(erased.Records)}})
		}),
	}
	erase.Flags().StringVar(&reason, "reason", "", "the reason, without the name; it is recorded in the evidence")
	return erase
}

// principalRestore returns the command that reactivates a principal.
func (c *cli) principalRestore(path func(string) string) *cobra.Command {
	var dryRun, cancel bool
	var reason string
	restore := &cobra.Command{
		Use: "restore NAME|ID", Args: cobra.ExactArgs(1),
		Short: "Reactivate a User or an Agent as its IdP would; credentials are not restored",
		Example: `  leaver principal restore ada@example.com --tenant acme --dry-run
  leaver principal restore ada@example.com --tenant acme --reason "it was a mistake; INC-18"`,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			id, err := toChange(cmd, cl, path, args[0], reason, dryRun)
			if err != nil {
				return err
			}
			if dryRun {
				return c.restorationOf(cmd, cl, path("/principals/"+id+"/restoration"))
			}
			var restored struct {
				Event      string      `json:"eventId"`
				Workflow   string      `json:"workflowId"`
				Restricted bool        `json:"restricted"`
				Cancelled  []uuid.UUID `json:"cancelledCascades"`
			}
			target := path("/principals/" + id + "/restore")
			if cancel {
				target += "?cancel=true"
			}
			if err := cl.do(cmd.Context(), http.MethodPost, target, map[string]string{"reason": reason}, &restored); err != nil {
				return err
			}
			_, _ = fmt.Fprintln(c.stderr, "agents that were suspended with their owner stay suspended: restore each")
			if restored.Restricted {
				_, _ = fmt.Fprintln(c.stderr, "the agent has no active owner: it was suspended again at once")
			}
			return c.print(restored, []string{"EVENT", "WORKFLOW"}, [][]string{{restored.Event, restored.Workflow}})
		}),
	}
	restore.Flags().BoolVar(&dryRun, "dry-run", false,
		"print the entitlements that would be restored and the cascades that would continue; restore nothing")
	restore.Flags().BoolVar(&cancel, "cancel", false,
		"also cancel the principal's running cascades; credentials that they have not ended stay alive")
	restore.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	return restore
}

func (c *cli) restorationOf(cmd *cobra.Command, cl *client, path string) error {
	var plan api.Restoration
	if err := cl.do(cmd.Context(), http.MethodGet, path, nil, &plan); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(c.stderr,
		"credentials are not restored, and agents that were suspended with their owner stay suspended: restore each")
	var rows [][]string
	for _, name := range plan.Entitlements {
		rows = append(rows, []string{"entitlement", name, "restored"})
	}
	for _, cascade := range plan.Running {
		rows = append(rows, []string{"cascade", cascade.ID.String(), "continues to end its credentials"})
	}
	return c.print(plan, []string{"TYPE", "NAME", "EFFECT"}, rows)
}

// toChange returns the id of the principal that a command changes. It returns a usage error if
// the reason is missing, unless dryRun is set.
func toChange(
	cmd *cobra.Command, cl *client, path func(string) string, name, reason string, dryRun bool,
) (string, error) {
	if reason == "" && !dryRun {
		return "", coded(exitUsage, "--reason is required unless --dry-run is given; it is recorded in the audit log")
	}
	return principalID(cmd, cl, path, name)
}

// principalID returns name if it is a SCIM id, and otherwise the id of the user or agent with that
// name.
func principalID(cmd *cobra.Command, cl *client, path func(string) string, name string) (string, error) {
	if id, err := uuid.Parse(name); err == nil {
		return id.String(), nil
	}
	found, err := all[directory.Named](cmd.Context(), cl, path("/principals"), url.Values{"name": {name}}, 0)
	switch {
	case err != nil:
		return "", err
	case len(found) == 0:
		return "", coded(exitNotFound, "no user or agent named %q", name)
	case len(found) > 1:
		return "", coded(exitUsage, "%q names a User (%s) and an Agent (%s): specify the id", name, found[0].ID, found[1].ID)
	}
	return found[0].ID.String(), nil
}

// planOf prints a plan: the credentials in the order of their end, then the orphaned agents.
func (c *cli) planOf(cmd *cobra.Command, cl *client, path string) error {
	var plan api.Plan
	if err := cl.do(cmd.Context(), http.MethodGet, path, nil, &plan); err != nil {
		return err
	}
	if c.output == "json" {
		return c.print(plan, nil, nil)
	}
	if plan.Principal.Restricted {
		_, _ = fmt.Fprintf(c.stderr, "%s is already restricted; the plan is that of a re-run\n",
			escaped(plan.Principal.Name, ""))
	}
	var rows [][]string
	for n, i := range plan.Items {
		verified, goesOn := "yes", "-"
		if !i.Verifiable {
			verified = "NO: there is no probe"
		}
		if i.Verb == credential.Rotate {
			goesOn = fmt.Sprintf("%d registered", len(i.Holders))
		}
		rows = append(rows, []string{itoa(n + 1), string(i.Verb), string(i.Kind), i.Connector, i.Reference, goesOn, verified})
	}
	if err := c.print(nil, []string{"#", "VERB", "KIND", "CONNECTOR", "REFERENCE", "OTHER HOLDERS", "VERIFIABLE"},
		rows); err != nil {
		return err
	}
	if plan.More {
		_, _ = fmt.Fprintln(c.stderr, "… and more credentials")
	}
	fate := "suspended"
	if plan.Manager != nil {
		fate = "transferred to the manager " + plan.Manager.String()
	}
	if err := c.planUnmanaged(plan); err != nil {
		return err
	}
	rows = nil
	for _, a := range plan.Orphans {
		rows = append(rows, []string{a.ID.String(), a.Name, fate})
	}
	if len(rows) == 0 {
		return nil
	}
	return c.print(nil, []string{"ORPHANED AGENT", "NAME", "EFFECT"}, rows)
}

// planUnmanaged prints the unmanaged credentials, which are not ended, and the connectors that
// failed to list credentials.
func (c *cli) planUnmanaged(plan api.Plan) error {
	var unmanaged, asked [][]string
	for _, u := range plan.Unmanaged {
		unmanaged = append(unmanaged, []string{string(u.Kind), u.Connector, u.Reference, optional(u.Label)})
	}
	for _, n := range plan.NotAsked {
		asked = append(asked, []string{n.Connector, n.Reason})
	}
	if len(unmanaged) > 0 {
		if err := c.print(nil, []string{"UNMANAGED CREDENTIAL (NOT ENDED)", "CONNECTOR", "REFERENCE", "LABELLED"},
			unmanaged); err != nil {
			return err
		}
	}
	if len(asked) > 0 {
		return c.print(nil, []string{"FAILED CONNECTOR", "REASON"}, asked)
	}
	return nil
}
