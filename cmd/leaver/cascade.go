package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/apiclient"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/evidence"
)

func tenantPath(of string) string { return apiclient.TenantPath(of) }

func tenantFlag(cmd *cobra.Command, of *string) {
	cmd.Flags().StringVar(of, "tenant", "", "name or ID of the tenant (required)")
	if err := cmd.MarkFlagRequired("tenant"); err != nil {
		panic(err) // the flag is defined above
	}
}

func (c *cli) cascadeCommand() *cobra.Command {
	group := &cobra.Command{Use: "cascade", Short: "List, show, await, re-run and cancel cascades, and waive survivors"}
	group.AddCommand(c.cascadeList(), c.cascadeShow(), c.cascadeWait(), c.cascadeRerun(), c.cascadeRetry(),
		c.cascadeWaive(), c.cascadeCancel())
	return group
}

func (c *cli) cascadeList() *cobra.Command {
	var of, principal, agent, outcome, connector, since string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List cascades, newest first", Args: cobra.NoArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, _ []string) error {
			query := url.Values{
				"principal": {principal}, "agent": {agent}, "outcome": {outcome}, "connector": {connector},
				"limit": {strconv.Itoa(min(max(limit, 1), 500))},
			}
			if since != "" {
				from, err := sinceTime(since, time.Now())
				if err != nil {
					return err
				}
				query.Set("since", from)
			}
			cascades, err := all[api.ShownCascade](cmd.Context(), cl, tenantPath(of)+"/cascades", query, limit)
			if err != nil {
				return err
			}
			if limit > 0 && len(cascades) == limit {
				_, _ = fmt.Fprintf(c.stderr, "listed the newest %d cascades; there may be more (--limit 0 lists all)\n", limit)
			}
			return c.print(cascades, cascadeHeader, cascadeRows(cascades...))
		}),
	}
	tenantFlag(cmd, &of)
	cmd.Flags().StringVar(&principal, "principal", "", "list only cascades of this principal (name or SCIM id)")
	cmd.Flags().StringVar(&agent, "agent", "",
		"list only cascades with credentials that this agent holds (name or SCIM id)")
	cmd.Flags().StringVar(&outcome, "outcome", "",
		"list only cascades with these outcomes, comma-separated: pending, running, completed, failed, cancelled")
	cmd.Flags().StringVar(&connector, "connector", "",
		"list only cascades with live credentials at this connector, or that failed to query it")
	cmd.Flags().StringVar(&since, "since", "",
		"list only cascades created within a duration, such as 24h, or since a time such as 2026-11-27T18:00:00Z")
	cmd.Flags().IntVar(&limit, "limit", 100, "maximum number of cascades to list; 0 lists all")
	return cmd
}

// sinceTime parses a duration before now or an RFC 3339 time, and returns the time in RFC 3339.
func sinceTime(text string, now time.Time) (string, error) {
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d).UTC().Format(time.RFC3339), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.UTC().Format(time.RFC3339), nil
	}
	return "", coded(exitUsage, "--since must be a duration such as 24h or a time such as 2026-11-27T18:00:00Z, got %q",
		text)
}

var cascadeHeader = []string{
	"ID", "PRINCIPAL", "NAME", "TRIGGER", "OUTCOME", "VERIFIED", "REVOKED", "ABSENT", "EXPIRING", "SURVIVORS", "WAIVED",
	"ENDING", "CREATED", "CLOSED",
}

func cascadeRows(cascades ...api.ShownCascade) [][]string {
	var rows [][]string
	for _, x := range cascades {
		rows = append(rows, []string{
			x.ID.String(), x.Principal.String(), cmp.Or(x.PrincipalName, "-"), string(x.Trigger), x.Outcome,
			strconv.Itoa(x.Verified), strconv.Itoa(x.Revoked), strconv.Itoa(x.Absent), strconv.Itoa(x.Expiring),
			strconv.Itoa(x.Survivors), strconv.Itoa(x.Waived), strconv.Itoa(x.Ending), stamp(&x.CreatedAt), stamp(x.ClosedAt),
		})
	}
	return rows
}

// details is the JSON output of `cascade show`.
type details struct {
	api.ShownCascade
	Items    []api.ShownItem   `json:"items"`
	Acts     []cascade.Done    `json:"acts"` // what operators did
	Evidence []evidence.Record `json:"evidence"`
}

func (c *cli) cascadeShow() *cobra.Command {
	var of string
	cmd := &cobra.Command{
		Use: "show ID", Args: cobra.ExactArgs(1),
		Short: "Show a cascade with its credentials, pending work, failed connectors and acts; -o json adds the evidence",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			var d details
			path := tenantPath(of) + "/cascades/" + url.PathEscape(args[0])
			err := cl.do(cmd.Context(), http.MethodGet, path, nil, &d.ShownCascade)
			if err != nil {
				return err
			}
			if d.Items, err = all[api.ShownItem](cmd.Context(), cl, tenantPath(of)+"/credentials",
				url.Values{"cascade": {args[0]}, "limit": {"500"}}, 0); err != nil {
				return err
			}
			if d.Acts, err = all[cascade.Done](cmd.Context(), cl, path+"/acts", url.Values{}, 0); err != nil {
				return err
			}
			if c.output == "json" {
				if d.Evidence, err = all[evidence.Record](cmd.Context(), cl, path+"/evidence",
					url.Values{"limit": {"500"}}, 0); err != nil {
					return err
				}
				return c.print(d, nil, nil)
			}
			return c.printDetails(d)
		}),
	}
	tenantFlag(cmd, &of)
	return cmd
}

// printDetails prints a cascade as tables, and omits empty tables.
func (c *cli) printDetails(d details) error {
	if err := c.print(nil, cascadeHeader, cascadeRows(d.ShownCascade)); err != nil {
		return err
	}
	if err := c.print(nil, itemHeader, itemRows(d.Items)); err != nil {
		return err
	}
	var waiting, asked, unmanaged, acts [][]string
	for _, w := range d.Waiting {
		kind := cmp.Or(string(w.Kind), "(discovery)")
		if w.Connector == "" {
			kind = "(the workflow)"
		}
		waiting = append(waiting,
			[]string{cmp.Or(w.Connector, "-"), kind, itoa(w.Attempts), w.Answer, stamp(w.NextTry), stamp(w.Deadline)})
	}
	for _, n := range d.NotAsked {
		asked = append(asked, []string{n.Connector, n.Reason})
	}
	for _, u := range d.Unmanaged {
		unmanaged = append(unmanaged, []string{u.ID.String(), string(u.Kind), u.Connector, u.Reference, stamp(&u.SeenAt)})
	}
	for _, a := range d.Acts {
		acts = append(acts, []string{stamp(&a.At), a.Verb, a.Actor, a.Reason})
	}
	for _, table := range []struct {
		header []string
		rows   [][]string
	}{
		{[]string{"WAITING FOR", "KIND", "ATTEMPTS", "LAST ANSWER", "NEXT TRY", "DEADLINE"}, waiting},
		{[]string{"FAILED CONNECTOR", "REASON"}, asked},
		{[]string{"UNMANAGED CREDENTIAL", "KIND", "CONNECTOR", "REFERENCE", "SEEN"}, unmanaged},
		{[]string{"AT", "ACT", "ACTOR", "REASON"}, acts},
	} {
		if len(table.rows) == 0 {
			continue
		}
		if err := c.print(nil, table.header, table.rows); err != nil {
			return err
		}
	}
	return nil
}

// cascadeCancel returns the command that cancels a running cascade.
func (c *cli) cascadeCancel() *cobra.Command {
	var of, reason string
	cmd := &cobra.Command{
		Use: "cancel ID", Short: "Cancel a running cascade; credentials that it has not ended stay alive",
		Args:    cobra.ExactArgs(1),
		Example: `  leaver cascade cancel 019… --tenant acme --reason "the wrong person; INC-19"`,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			if reason == "" {
				return coded(exitUsage, "--reason is required; it is recorded in the audit log")
			}
			var cascade api.ShownCascade
			err := cl.do(cmd.Context(), http.MethodPost, tenantPath(of)+"/cascades/"+url.PathEscape(args[0])+"/cancel",
				map[string]string{"reason": reason}, &cascade)
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
		Use: "wait ID", Short: "Wait until a cascade closes; exit code 0: completed, 5: survivors, 6: still running",
		Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			cascade, err := c.wait(cmd, cl, tenantPath(of)+"/cascades/"+url.PathEscape(args[0]), timeout)
			if err != nil {
				return err
			}
			if err := c.print(cascade, cascadeHeader, cascadeRows(cascade)); err != nil {
				return err
			}
			return exitOf(cascade, of)
		}),
	}
	tenantFlag(cmd, &of)
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait")
	return cmd
}

func (c *cli) wait(cmd *cobra.Command, cl *client, path string, timeout time.Duration) (api.ShownCascade, error) {
	until := time.Now().Add(timeout)
	for {
		var cascade api.ShownCascade
		step := max(0, min(waitStep, time.Until(until)))
		err := cl.do(cmd.Context(), http.MethodGet, path+"?wait="+step.Round(time.Millisecond).String(), nil, &cascade)
		if err != nil || cascade.ClosedAt != nil || time.Now().After(until) {
			return cascade, err
		}
	}
}

// exitOf returns nil if the cascade completed, and otherwise an error with the exit code and the
// next command.
func exitOf(cascade api.ShownCascade, tenant string) error {
	rerun := fmt.Sprintf("`leaver cascade rerun %s --tenant %s --reason \"…\"`", cascade.ID, tenant)
	show := fmt.Sprintf("`leaver cascade show %s --tenant %s`", cascade.ID, tenant)
	switch cascade.Outcome {
	case "completed":
		return nil
	case "cancelled":
		return coded(exitSurvivors, "the cascade was cancelled and %d credentials were not ended; run %s to end them",
			cascade.Survivors, rerun)
	case "failed":
		switch {
		case cascade.Survivors == 0 && len(cascade.NotAsked) > 0:
			first := cascade.NotAsked[0]
			return coded(exitSurvivors, "connector %s failed to list the principal's credentials: %s; once it responds, run %s",
				first.Connector, first.Reason, rerun)
		case cascade.Survivors == 0:
			return coded(exitSurvivors, "the cascade was interrupted: check the workflow %s in Temporal, then run %s",
				cascade.WorkflowID, rerun)
		}
		return coded(exitSurvivors, "%d credentials survived: run %s, fix the reported errors, then run %s",
			cascade.Survivors, show, rerun)
	}
	return coded(exitRunning, "the cascade is still %s: run %s to see what it waits for", cascade.Outcome, show)
}
