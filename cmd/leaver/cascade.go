package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/inventory"
	"github.com/leaverhq/leaver/internal/lifecycle"
)

func tenantPath(of string) string { return "/tenants/" + url.PathEscape(of) }

func tenantFlag(cmd *cobra.Command, of *string) {
	cmd.Flags().StringVar(of, "tenant", "", "the tenant")
	if err := cmd.MarkFlagRequired("tenant"); err != nil {
		panic(err) // the flag is defined above
	}
}

func (c *cli) cascadeCommand() *cobra.Command {
	group := &cobra.Command{Use: "cascade", Short: "Read cascades, wait for them, run them again, waive survivors"}
	group.AddCommand(c.cascadeList(), c.cascadeShow(), c.cascadeWait(), c.cascadeRerun(), c.cascadeRetry(), c.cascadeWaive(), c.cascadeCancel())
	return group
}

func (c *cli) cascadeList() *cobra.Command {
	var of, principal, outcome string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List cascades, newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			query := url.Values{"principal": {principal}, "outcome": {outcome}, "limit": {strconv.Itoa(min(max(limit, 1), 500))}}
			cascades, err := all[lifecycle.Cascade](cmd.Context(), cl, tenantPath(of)+"/cascades", query, limit)
			if err != nil {
				return err
			}
			if limit > 0 && len(cascades) == limit {
				_, _ = fmt.Fprintf(c.stderr, "the newest %d; there may be more (--limit 0 lists all)\n", limit)
			}
			return c.print(cascades, cascadeHeader, cascadeRows(cascades...))
		},
	}
	tenantFlag(cmd, &of)
	cmd.Flags().StringVar(&principal, "principal", "", "only this principal's (SCIM id)")
	cmd.Flags().StringVar(&outcome, "outcome", "", "only pending, running, completed, failed or cancelled ones")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many at most; 0 is all")
	return cmd
}

var cascadeHeader = []string{"ID", "PRINCIPAL", "TRIGGER", "OUTCOME", "VERIFIED", "REVOKED", "EXPIRING", "SURVIVORS", "WAIVED", "CREATED", "CLOSED"}

func cascadeRows(cascades ...lifecycle.Cascade) [][]string {
	var rows [][]string
	for _, x := range cascades {
		rows = append(rows, []string{
			x.ID.String(), x.Principal.String(), string(x.Trigger), x.Outcome, strconv.Itoa(x.Verified), strconv.Itoa(x.Revoked),
			strconv.Itoa(x.Expiring), strconv.Itoa(x.Survivors), strconv.Itoa(x.Waived), stamp(&x.CreatedAt), stamp(x.ClosedAt),
		})
	}
	return rows
}

// details is what `cascade show` tells, as JSON.
type details struct {
	lifecycle.Cascade
	Items    []inventory.Item  `json:"items"`
	Acts     []lifecycle.Done  `json:"acts"` // what operators did
	Evidence []evidence.Record `json:"evidence"`
}

func (c *cli) cascadeShow() *cobra.Command {
	var of string
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show a cascade with its items; -o json adds the evidence and what operators did", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			var d details
			path := tenantPath(of) + "/cascades/" + url.PathEscape(args[0])
			if err := cl.do(cmd.Context(), http.MethodGet, path, nil, &d.Cascade); err != nil {
				return err
			}
			if d.Items, err = all[inventory.Item](cmd.Context(), cl, tenantPath(of)+"/inventory", url.Values{"cascade": {args[0]}, "limit": {"500"}}, 0); err != nil {
				return err
			}
			if c.output == "json" {
				if d.Acts, err = all[lifecycle.Done](cmd.Context(), cl, path+"/acts", url.Values{}, 0); err != nil {
					return err
				}
				if d.Evidence, err = all[evidence.Record](cmd.Context(), cl, path+"/evidence", url.Values{"limit": {"500"}}, 0); err != nil {
					return err
				}
				return c.print(d, nil, nil)
			}
			if err := c.print(nil, cascadeHeader, cascadeRows(d.Cascade)); err != nil {
				return err
			}
			return c.print(nil, itemHeader, itemRows(d.Items))
		},
	}
	tenantFlag(cmd, &of)
	return cmd
}

// cascadeCancel stops a cascade.
func (c *cli) cascadeCancel() *cobra.Command {
	var of, reason string
	cmd := &cobra.Command{
		Use: "cancel ID", Short: "Cancel a running cascade; credentials that it has not ended stay alive", Args: cobra.ExactArgs(1),
		Example: `  leaver cascade cancel 019… --tenant acme --reason "the wrong person; INC-19"`,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			if reason == "" {
				return coded(exitUsage, "--reason is required; it is recorded in the audit log")
			}
			var cascade lifecycle.Cascade
			err := cl.do(cmd.Context(), http.MethodPost, tenantPath(of)+"/cascades/"+url.PathEscape(args[0])+"/cancel", map[string]string{"reason": reason}, &cascade)
			if err != nil {
				return err
			}
			return c.print(cascade, cascadeHeader, cascadeRows(cascade))
		}),
	}
	tenantFlag(cmd, &of)
	cmd.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	return cmd
}

const waitStep = 30 * time.Second

func (c *cli) cascadeWait() *cobra.Command {
	var of string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait ID", Short: "Wait until a cascade closes: 0 completed, 5 survivors, 6 still running", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			cascade, err := c.wait(cmd, cl, tenantPath(of)+"/cascades/"+url.PathEscape(args[0]), timeout)
			if err != nil {
				return err
			}
			if err := c.print(cascade, cascadeHeader, cascadeRows(cascade)); err != nil {
				return err
			}
			return exitOf(cascade)
		},
	}
	tenantFlag(cmd, &of)
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait")
	return cmd
}

func (c *cli) wait(cmd *cobra.Command, cl *client, path string, timeout time.Duration) (lifecycle.Cascade, error) {
	until := time.Now().Add(timeout)
	for {
		var cascade lifecycle.Cascade
		step := max(0, min(waitStep, time.Until(until)))
		err := cl.do(cmd.Context(), http.MethodGet, path+"?wait="+step.Round(time.Millisecond).String(), nil, &cascade)
		if err != nil || cascade.ClosedAt != nil || time.Now().After(until) {
			return cascade, err
		}
	}
}

func exitOf(cascade lifecycle.Cascade) error {
	switch cascade.Outcome {
	case "completed":
		return nil
	case "cancelled":
		return coded(exitSurvivors, "the cascade was cancelled and %d credentials were not ended; run `leaver cascade rerun %s` to end them", cascade.Survivors, cascade.ID)
	case "failed":
		if cascade.Survivors == 0 {
			return coded(exitSurvivors, "it was cut short, or a downstream could not be asked what it holds: its workflow says which; then `leaver cascade rerun %s`", cascade.ID)
		}
		return coded(exitSurvivors, "%d survived; see `leaver cascade show`, fix what it names, then `leaver cascade rerun %s`", cascade.Survivors, cascade.ID)
	}
	return coded(exitRunning, "the cascade is still %s", cascade.Outcome)
}
