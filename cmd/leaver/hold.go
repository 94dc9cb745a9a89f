package main

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/cascade"
)

func (c *cli) holdCommand() *cobra.Command {
	group := &cobra.Command{Use: "hold", Short: "List and approve mass deactivations that are held for approval"}
	path := ofTenant(group)
	list := &cobra.Command{
		Use: "list", Short: "List the tenant's held and approved mass deactivations, newest first", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			holds, err := all[cascade.Hold](cmd.Context(), cl, path("/holds"), url.Values{}, 0)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, b := range holds {
				approved, by, why := "held", "-", "-"
				if b.ApprovedAt != nil {
					approved, by, why = stamp(b.ApprovedAt), *b.ApprovedBy, *b.Reason
				}
				rows = append(rows, []string{
					b.ID.String(), stamp(&b.HeldAt), strconv.Itoa(b.Leavers), strconv.Itoa(b.HeldCascades), approved, by, why,
				})
			}
			return c.print(holds, []string{"ID", "HELD", "LEAVERS", "HELD CASCADES", "APPROVED", "BY", "REASON"}, rows)
		}),
	}
	var reason string
	var held int
	approve := &cobra.Command{
		Use: "approve", Short: "Approve the held cascades; requires an approver's token", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			if reason == "" {
				return coded(exitUsage, "--reason is required; it is recorded in the audit log")
			}
			var answer struct {
				ID        string `json:"id"`
				Signalled int    `json:"signalled"`
				Pending   int    `json:"pending"`
			}
			if err := cl.do(cmd.Context(), http.MethodPost, path("/holds/approve"),
				map[string]any{"reason": reason, "heldCascades": held}, &answer); err != nil {
				return err
			}
			return c.print(answer, []string{"HOLD", "NOTIFIED CASCADES", "PENDING CASCADES"},
				[][]string{{answer.ID, itoa(answer.Signalled), itoa(answer.Pending)}})
		}),
	}
	approve.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	approve.Flags().IntVar(&held, "held", 0,
		"the number of held cascades that you approve, as `leaver hold list` shows it: more are refused; 0 approves all")
	group.AddCommand(list, approve)
	return group
}

func (c *cli) connectorCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "connector", Short: "List, check, pause and resume connectors, and validate definitions of new ones",
	}
	list := &cobra.Command{
		Use: "list", Short: "List connectors with their capabilities and state", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			found, err := all[api.ShownConnector](cmd.Context(), cl, "/connectors", url.Values{}, 0)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, f := range found {
				rate, state := "-", "in use"
				if f.Rate > 0 {
					rate = strconv.FormatFloat(f.Rate, 'g', -1, 64)
				}
				if f.Paused != nil {
					state = "paused since " + stamp(&f.Paused.Since) + ": " + f.Paused.Reason
				}
				rows = append(rows,
					[]string{
						f.Name, f.Type, strings.Join(f.Tenants, ","), rate, strings.Join(f.Capabilities, ","),
						strconv.Itoa(f.Ending), strconv.Itoa(f.Failed), state,
					})
			}
			return c.print(found, []string{"NAME", "TYPE", "TENANTS", "RATE", "CAN", "OPEN", "UNREVOKED", "STATE"}, rows)
		}),
	}
	group.AddCommand(list,
		c.connectorChange("pause", "Pause a connector; other connectors are not affected"),
		c.connectorChange("resume", "Resume a paused connector"),
		c.connectorTypes(), c.connectorExample(), c.connectorCheck(), c.connectorValidate())
	return group
}

func (c *cli) connectorChange(verb, short string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: verb + " NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			if reason == "" {
				return coded(exitUsage, "--reason is required; it is recorded in the audit log")
			}
			return cl.do(cmd.Context(), http.MethodPost, "/connectors/"+url.PathEscape(args[0])+"/"+verb,
				map[string]string{"reason": reason}, nil)
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	return cmd
}
