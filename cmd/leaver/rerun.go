package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
)

// rerun holds the flags of `cascade rerun`.
type rerun struct {
	of, reason   string
	failed       bool
	since        time.Duration
	connector    string
	dryRun, wait bool
	timeout      time.Duration
}

func (c *cli) cascadeRerun() *cobra.Command {
	var r rerun
	cmd := &cobra.Command{
		Use: "rerun [ID …]", Short: "Run failed cascades again; each ends only credentials that are still alive",
		Example: `  leaver cascade rerun --tenant acme ID --reason "the role was granted CREATEROLE" --wait
  leaver cascade rerun --tenant acme --failed --since 24h --connector crm --dry-run`,
		Args: cobra.ArbitraryArgs,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error { return c.rerun(cmd, cl, r, args) }),
	}
	tenantFlag(cmd, &r.of)
	f := cmd.Flags()
	f.StringVar(&r.reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	f.BoolVar(&r.failed, "failed", false, "run all failed cascades again, instead of IDs")
	f.DurationVar(&r.since, "since", 0, "with --failed: only cascades created within this duration, e.g. 24h")
	f.StringVar(&r.connector, "connector", "", "with --failed: only cascades with a survivor at this connector")
	f.BoolVar(&r.dryRun, "dry-run", false,
		"list the cascades that would run and the credentials that each would end; run none")
	f.BoolVar(&r.wait, "wait", false, "wait until the cascades close")
	f.DurationVar(&r.timeout, "timeout", 10*time.Minute, "how long to wait for each cascade")
	return cmd
}

func (c *cli) rerun(cmd *cobra.Command, cl *client, r rerun, ids []string) error {
	switch {
	case r.failed == (len(ids) > 0):
		return coded(exitUsage, "specify either IDs or --failed; see `leaver cascade rerun --help`")
	case !r.failed && (r.since > 0 || r.connector != ""):
		return coded(exitUsage, "--since and --connector require --failed")
	case r.reason == "" && !r.dryRun:
		return coded(exitUsage, "--reason is required; it is recorded in the audit log")
	}
	if r.failed {
		query := url.Values{"outcome": {"failed"}, "limit": {"500"}, "connector": {r.connector}}
		if r.since > 0 {
			query.Set("since", time.Now().Add(-r.since).UTC().Format(time.RFC3339))
		}
		cascades, err := all[cascade.Cascade](cmd.Context(), cl, tenantPath(r.of)+"/cascades", query, 0)
		if err != nil {
			return err
		}
		for _, one := range cascades {
			ids = append(ids, one.ID.String())
		}
	}
	if r.dryRun {
		return c.wouldRerun(cmd, cl, r, ids)
	}
	started := make(map[string]string)
	var refused error
	for _, id := range ids {
		var answer struct {
			RunID string `json:"runId"`
		}
		path := tenantPath(r.of) + "/cascades/" + url.PathEscape(id) + "/rerun"
		if err := cl.do(cmd.Context(), http.MethodPost, path, map[string]string{"reason": r.reason}, &answer); err != nil {
			if len(ids) == 1 {
				return err
			}
			_, _ = fmt.Fprintf(c.stderr, "%s: %v\n", id, err)
			refused = coded(exitError, "some cascades were not run again; see the errors above")
			continue
		}
		started[id] = answer.RunID
	}
	if r.wait {
		return errors.Join(c.waitAll(cmd, cl, r, ids, started), refused)
	}
	var rows [][]string
	runs := []map[string]string{}
	for _, id := range ids {
		if run, ok := started[id]; ok {
			rows, runs = append(rows, []string{id, run}), append(runs, map[string]string{"id": id, "runId": run})
		}
	}
	return errors.Join(c.print(runs, []string{"CASCADE", "RUN"}, rows), refused)
}

// waitAll waits for each started cascade, and returns the error with the worst exit code.
func (c *cli) waitAll(cmd *cobra.Command, cl *client, r rerun, ids []string, started map[string]string) error {
	cascades := []api.ShownCascade{}
	var worst error
	for _, id := range ids {
		if _, ok := started[id]; !ok {
			continue
		}
		one, err := c.wait(cmd, cl, tenantPath(r.of)+"/cascades/"+url.PathEscape(id), r.timeout)
		if err != nil {
			return err
		}
		cascades = append(cascades, one)
		worst = worse(worst, exitOf(one, r.of))
	}
	return errors.Join(c.print(cascades, cascadeHeader, cascadeRows(cascades...)), worst)
}

// worse returns the error with the worse exit code: survivors before a cascade
// that is still running.
func worse(a, b error) error {
	var of *codedError
	if b == nil || errors.As(a, &of) && of.code == exitSurvivors {
		return a
	}
	return b
}

// wouldRerun prints the credentials that each cascade would end: those of the cascade and of its
// principal that are still alive.
func (c *cli) wouldRerun(cmd *cobra.Command, cl *client, r rerun, ids []string) error {
	touched := []credential.Item{}
	var rows [][]string
	for _, id := range ids {
		var one cascade.Cascade
		if err := cl.do(cmd.Context(), http.MethodGet, tenantPath(r.of)+"/cascades/"+url.PathEscape(id), nil,
			&one); err != nil {
			return err
		}
		items, err := all[credential.Item](cmd.Context(), cl, tenantPath(r.of)+"/credentials",
			url.Values{"principal": {one.Principal.String()}, "limit": {"500"}}, 0)
		if err != nil {
			return err
		}
		mine, err := all[credential.Item](cmd.Context(), cl, tenantPath(r.of)+"/credentials",
			url.Values{"cascade": {id}, "limit": {"500"}}, 0)
		if err != nil {
			return err
		}
		seen := make(map[uuid.UUID]bool)
		for _, i := range append(mine, items...) {
			if seen[i.ID] || (i.State != credential.Failed && i.State != credential.Ending && i.State != credential.Live) {
				continue
			}
			seen[i.ID] = true
			touched = append(touched, i)
			rows = append(rows, []string{id, i.ID.String(), string(i.Kind), i.Connector, i.Reference, i.Reason})
		}
	}
	return c.print(touched, []string{"CASCADE", "ITEM", "KIND", "CONNECTOR", "REFERENCE", "LAST ANSWER"}, rows)
}

func (c *cli) cascadeRetry() *cobra.Command {
	var of, item, reason string
	cmd := &cobra.Command{
		Use: "retry ID", Short: "Retry the pending and failed credentials of a running cascade now", Args: cobra.ExactArgs(1),
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			if reason == "" {
				return coded(exitUsage, "--reason is required; it is recorded in the audit log")
			}
			body := map[string]string{"reason": reason}
			if item != "" {
				body["itemId"] = item
			}
			var answer struct {
				Retried int `json:"retried"`
			}
			if err := cl.do(cmd.Context(), http.MethodPost, tenantPath(of)+"/cascades/"+url.PathEscape(args[0])+"/retry", body,
				&answer); err != nil {
				return err
			}
			return c.print(answer, []string{"RETRIED"}, [][]string{{fmt.Sprint(answer.Retried)}})
		}),
	}
	tenantFlag(cmd, &of)
	cmd.Flags().StringVar(&item, "item", "", "ID of the credential to retry (default: all that are pending)")
	cmd.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	return cmd
}

func (c *cli) cascadeWaive() *cobra.Command {
	var of, item, reason string
	var period time.Duration
	cmd := &cobra.Command{
		Use: "waive ID", Short: "Waive one survivor for a period, after which it is ended again", Args: cobra.ExactArgs(1),
		Example: `  leaver cascade waive --tenant acme ID --item ITEM --for 72h --reason "the export must finish; CHG-4711"`,
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			if reason == "" || item == "" || period <= 0 {
				return coded(exitUsage, "--item, --for and --reason are required")
			}
			var waived struct {
				credential.Item
				Request *uuid.UUID `json:"waiverId,omitempty"` // if it waits for an approver
			}
			body := map[string]any{"reason": reason, "itemId": item, "until": time.Now().Add(period).UTC().Truncate(time.Second)}
			if err := cl.do(cmd.Context(), http.MethodPost, tenantPath(of)+"/cascades/"+url.PathEscape(args[0])+"/waive", body,
				&waived); err != nil {
				return err
			}
			if waived.Request != nil {
				return c.print(map[string]any{"waiverId": waived.Request}, []string{"WAIVER", "NEXT"},
					[][]string{{waived.Request.String(), "an approver runs leaver waiver approve --tenant " + of}})
			}
			return c.print(waived.Item, itemHeader, itemRows([]api.ShownItem{{Item: waived.Item}}))
		}),
	}
	tenantFlag(cmd, &of)
	cmd.Flags().StringVar(&item, "item", "", "ID of the survivor")
	cmd.Flags().DurationVar(&period, "for", 0, "period of the waiver, e.g. 72h")
	cmd.Flags().StringVar(&reason, "reason", "", "the reason; it is recorded in the audit log with your token's id")
	return cmd
}
