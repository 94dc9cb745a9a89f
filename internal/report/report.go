// Package report writes what the evidence says about one principal, for auditors.
package report

import (
	"cmp"
	"context"
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

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/apiclient"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/evidence"
)

//go:embed report.html
var page string

// Report is what the report about a principal shows.
type Report struct {
	Name, Tenant, ID string
	At               time.Time
	Checkpoint       evidence.Statement // of the evidence at the time of the report
	Cascades         []Cascade
	Alive            []api.ShownItem // not ended, and of no cascade in the report
}

// Cascade is a cascade in a report.
type Cascade struct {
	api.ShownCascade
	Rows []Row
	Acts []cascade.Done
}

// Row is a credential or scheduled run in a report.
type Row struct {
	api.ShownItem
	evidence.Proof
}

// Holder returns the name of the principal or agent that held the item.
func (r Row) Holder() string { return cmp.Or(r.AgentName, r.PrincipalName, r.Principal.String()) }

// Proven reports whether the item was seen alive before its end, and dead after.
func (r Row) Proven() bool { return r.State == credential.Verified && r.DeadAt != nil }

// Why returns the proof, or the reason why there is none.
func (r Row) Why() string {
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
func (r Report) Sentence() string {
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

// Write writes the report as a page of HTML without scripts and outer references.
func (r Report) Write(to io.Writer) error {
	functions := template.FuncMap{"stamp": stamp, "optional": func(t *time.Time) string {
		if t == nil {
			return "-"
		}
		return stamp(*t)
	}}
	parsed, err := template.New("report").Funcs(functions).Parse(page)
	if err != nil {
		return fmt.Errorf("parse the template: %w", err)
	}
	return parsed.Execute(to, r)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Read reads the content of the report about a principal, and records in the evidence that it was made. name is what
// the report calls the principal if no cascade names it.
func Read(ctx context.Context, c *apiclient.Client, tenant string, id uuid.UUID, name string) (Report, error) {
	r := Report{Name: name, Tenant: tenant, ID: id.String(), At: time.Now()}
	of := apiclient.TenantPath(tenant)
	var checkpoint evidence.Checkpoint
	err := c.Do(ctx, http.MethodPost, of+"/evidence/exports", map[string]any{"principal": id}, &checkpoint)
	if err != nil {
		return r, err
	}
	r.Checkpoint = checkpoint.Statement
	ofPrincipal := func() url.Values { return url.Values{"principal": {r.ID}, "limit": {"500"}} } // All sets the cursor
	cascades, err := apiclient.All[api.ShownCascade](ctx, c, of+"/cascades", ofPrincipal(), 0)
	if err != nil {
		return r, err
	}
	reported := make(map[uuid.UUID]bool)
	for _, shown := range cascades {
		one, err := readCascade(ctx, c, of, shown)
		if err != nil {
			return r, err
		}
		for _, row := range one.Rows {
			reported[row.ID] = true
		}
		r.Name = cmp.Or(shown.PrincipalName, r.Name)
		r.Cascades = append(r.Cascades, one)
	}
	held, err := apiclient.All[api.ShownItem](ctx, c, of+"/credentials", ofPrincipal(), 0)
	ended := []credential.State{credential.Verified, credential.Revoked, credential.Absent, credential.Released}
	r.Alive = slices.DeleteFunc(held, func(i api.ShownItem) bool {
		return reported[i.ID] || slices.Contains(ended, i.State)
	})
	return r, err
}

func readCascade(ctx context.Context, c *apiclient.Client, of string, shown api.ShownCascade) (Cascade, error) {
	one := Cascade{ShownCascade: shown}
	at := of + "/cascades/" + shown.ID.String()
	records, err := apiclient.All[evidence.Record](ctx, c, at+"/evidence", url.Values{"limit": {"500"}}, 0)
	if err != nil {
		return one, err
	}
	if one.Acts, err = apiclient.All[cascade.Done](ctx, c, at+"/acts", url.Values{}, 0); err != nil {
		return one, err
	}
	items, err := apiclient.All[api.ShownItem](ctx, c, of+"/credentials",
		url.Values{"cascade": {shown.ID.String()}, "limit": {"500"}}, 0)
	proofs := evidence.Proofs(records)
	for _, item := range items {
		one.Rows = append(one.Rows, Row{item, proofs[item.ID]})
	}
	return one, err
}
