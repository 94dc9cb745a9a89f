package main

import (
	"cmp"
	_ "embed" // of the template
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/evidence"
)

//go:embed report.html
var reportHTML string

// report is what the report about a principal shows.
type report struct {
	Name, Tenant, ID string
	At               time.Time
	Checkpoint       evidence.Statement // of the evidence at the time of the report
	Cascades         []reported
	Alive            []api.ShownItem // not ended, and of no cascade in the report
}

// reported is a cascade in a report.
type reported struct {
	api.ShownCascade
	Rows []reportRow
	Acts []cascade.Done
}

// reportRow is a credential or scheduled run in a report.
type reportRow struct {
	api.ShownItem
	evidence.Proof
}

// Holder returns the name of the principal or agent that held the item.
func (r reportRow) Holder() string { return cmp.Or(r.AgentName, r.PrincipalName, r.Principal.String()) }

// Proven reports whether the item was seen alive before its end, and dead after.
func (r reportRow) Proven() bool { return r.State == credential.Verified && r.DeadAt != nil }

// Why returns the proof, or the reason why there is none.
func (r reportRow) Why() string {
	switch {
	case r.Proven():
		return r.By
	case r.Reason != "":
		return r.Reason
	case r.Last == "":
		return "no attempt was made"
	case r.AliveAt == nil && r.DeadAt != nil:
		return "no probe saw it alive before the end: " + r.Last
	}
	return r.Last
}

// Sentence says in one sentence what was proven.
func (r report) Sentence() string {
	counts := make(map[string]int)
	total := 0
	for _, c := range r.Cascades {
		for _, row := range c.Rows {
			total++
			state := string(row.State)
			if row.Proven() {
				state = "ended and proven dead"
			}
			counts[state]++
		}
	}
	var parts []string
	for state, n := range counts {
		parts = append(parts, fmt.Sprintf("%d %s", n, state))
	}
	slices.Sort(parts)
	text := fmt.Sprintf("%d credentials and scheduled runs", total)
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	if n := len(r.Alive); n > 0 {
		text += fmt.Sprintf("; %d more are not ended", n)
	}
	return text + "."
}

func (r report) write(to io.Writer) error {
	functions := template.FuncMap{
		"stamp": func(t time.Time) string { return stamp(&t) }, "optional": stamp,
	}
	parsed, err := template.New("report").Funcs(functions).Parse(reportHTML)
	if err != nil {
		return fmt.Errorf("parse the template: %w", err)
	}
	return parsed.Execute(to, r)
}

func (c *cli) evidenceReport() *cobra.Command {
	var of, out string
	cmd := &cobra.Command{
		Use: "report NAME|ID", Args: cobra.ExactArgs(1),
		Short: "Write an HTML report about one principal: what was ended, how its death was proven, what was not",
		RunE: c.withClient(func(cmd *cobra.Command, cl *client, args []string) error {
			path := func(p string) string { return tenantPath(of) + p }
			id, err := principalID(cmd, cl, path, args[0])
			if err != nil {
				return err
			}
			r := report{Name: args[0], Tenant: of, ID: id, At: time.Now()}
			if err := r.read(cmd, cl, path); err != nil {
				return err
			}
			return c.toFile(out, r.write)
		}),
	}
	tenantFlag(cmd, &of)
	cmd.Flags().StringVar(&out, "out", "", "file to create (default: stdout)")
	return cmd
}

// read reads the content of the report, and records that it was made.
func (r *report) read(cmd *cobra.Command, cl *client, path func(string) string) error {
	ctx := cmd.Context()
	var checkpoint evidence.Checkpoint
	err := cl.do(ctx, http.MethodPost, path("/evidence/exports"), map[string]any{"principal": r.ID}, &checkpoint)
	if err != nil {
		return err
	}
	r.Checkpoint = checkpoint.Statement
	ofPrincipal := func() url.Values { return url.Values{"principal": {r.ID}, "limit": {"500"}} } // all sets the cursor
	cascades, err := all[api.ShownCascade](ctx, cl, path("/cascades"), ofPrincipal(), 0)
	if err != nil {
		return err
	}
	reportedItems := make(map[uuid.UUID]bool)
	for _, shown := range cascades {
		one := reported{ShownCascade: shown}
		at := path("/cascades/" + shown.ID.String())
		records, err := all[evidence.Record](ctx, cl, at+"/evidence", url.Values{"limit": {"500"}}, 0)
		if err != nil {
			return err
		}
		if one.Acts, err = all[cascade.Done](ctx, cl, at+"/acts", url.Values{}, 0); err != nil {
			return err
		}
		items, err := all[api.ShownItem](ctx, cl, path("/credentials"),
			url.Values{"cascade": {shown.ID.String()}, "limit": {"500"}}, 0)
		if err != nil {
			return err
		}
		proofs := evidence.Proofs(records)
		for _, item := range items {
			reportedItems[item.ID] = true
			one.Rows = append(one.Rows, reportRow{item, proofs[item.ID]})
		}
		if shown.PrincipalName != "" {
			r.Name = shown.PrincipalName
		}
		r.Cascades = append(r.Cascades, one)
	}
	held, err := all[api.ShownItem](ctx, cl, path("/credentials"), ofPrincipal(), 0)
	if err != nil {
		return err
	}
	ended := []credential.State{credential.Verified, credential.Revoked, credential.Absent, credential.Released}
	r.Alive = slices.DeleteFunc(held, func(i api.ShownItem) bool {
		return reportedItems[i.ID] || slices.Contains(ended, i.State)
	})
	return nil
}
