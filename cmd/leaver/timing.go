package main

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/cascade"
)

func (c *cli) reportCommand() *cobra.Command {
	var of string
	var since, target time.Duration
	cmd := &cobra.Command{
		Use: "report", Args: cobra.NoArgs,
		Short: "Show the time from deactivations to the last verified death, by connector and week",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			query := url.Values{"target": {target.String()}, "since": {time.Now().Add(-since).UTC().Format(time.RFC3339)}}
			var t cascade.Timing
			if err := cl.do(cmd.Context(), http.MethodGet, tenantPath(of)+"/time-to-zero?"+query.Encode(), nil, &t); err != nil {
				return err
			}
			rows := [][]string{timesRow("all", t.Times)}
			for _, connector := range t.Connectors {
				rows = append(rows, timesRow(connector.Connector, connector.Times))
			}
			for _, week := range t.Weeks {
				rows = append(rows, timesRow("week of "+week.Week.UTC().Format(time.DateOnly), week.Times))
			}
			return c.print(t, []string{"OF", "LEAVERS", "WITHIN " + target.String(), "P50", "P95", "WORST"}, rows)
		}),
	}
	tenantFlag(cmd, &of)
	cmd.Flags().DurationVar(&since, "since", cascade.DefaultSince, "how far back the deactivations go")
	cmd.Flags().DurationVar(&target, "target", cascade.DefaultTarget, "the time to compare with")
	return cmd
}

func timesRow(of string, t cascade.Times) []string {
	return []string{of, itoa(t.Leavers), itoa(t.Within), seconds(t.Median), seconds(t.P95), seconds(t.Worst)}
}

func seconds(s float64) string { return fmt.Sprintf("%.1f s", s) }
