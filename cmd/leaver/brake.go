package main

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/registry"
)

func (c *cli) brakeCommand() *cobra.Command {
	group := &cobra.Command{Use: "brake", Short: "See and release what holds a mass deactivation back"}
	path := ofTenant(group)
	list := &cobra.Command{
		Use: "list", Short: "List the tenant's brakes, newest first", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			brakes, err := all[cascade.Hold](cmd.Context(), cl, path("/brakes"), url.Values{}, 0)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, b := range brakes {
				released, by, why := "held", "-", "-"
				if b.ReleasedAt != nil {
					released, by, why = stamp(b.ReleasedAt), *b.ReleasedBy, *b.Reason
				}
				rows = append(rows, []string{b.ID.String(), stamp(&b.EngagedAt), strconv.Itoa(b.Leavers), strconv.Itoa(b.Held), released, by, why})
			}
			return c.print(brakes, []string{"ID", "ENGAGED", "LEAVERS", "HELD CASCADES", "RELEASED", "BY", "REASON"}, rows)
		}),
	}
	var reason string
	release := &cobra.Command{
		Use: "release", Short: "Let the held cascades go on; needs an approver's token", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			if reason == "" {
				return coded(exitUsage, "--reason is required; it is recorded in the audit log")
			}
			var answer struct {
				ID     string `json:"id"`
				Told   int    `json:"told"`
				Untold int    `json:"untold"`
			}
			if err := cl.do(cmd.Context(), http.MethodPost, path("/brakes/release"), map[string]string{"reason": reason}, &answer); err != nil {
				return err
			}
			return c.print(answer, []string{"BRAKE", "CASCADES TOLD", "NOT TOLD YET"}, [][]string{{answer.ID, itoa(answer.Told), itoa(answer.Untold)}})
		}),
	}
	release.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	group.AddCommand(list, release)
	return group
}

func (c *cli) connectorCommand() *cobra.Command {
	group := &cobra.Command{Use: "connector", Short: "See, pause and resume connectors"}
	list := &cobra.Command{
		Use: "list", Short: "List what is configured, what it can do, and what is paused", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			type connector struct {
				registry.Description
				Paused *registry.Pause `json:"paused,omitempty"`
			}
			found, err := all[connector](cmd.Context(), cl, "/connectors", url.Values{}, 0)
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
				rows = append(rows, []string{f.Name, f.Type, strings.Join(f.Tenants, ","), rate, strings.Join(f.Capabilities, ","), state})
			}
			return c.print(found, []string{"NAME", "TYPE", "TENANTS", "RATE", "CAN", "STATE"}, rows)
		}),
	}
	group.AddCommand(list,
		c.connectorChange("pause", "Hold a connector's work back; everything else goes on"),
		c.connectorChange("resume", "Let a paused connector's work go on"))
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
			return cl.do(cmd.Context(), http.MethodPost, "/connectors/"+url.PathEscape(args[0])+"/"+verb, map[string]string{"reason": reason}, nil)
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	return cmd
}
