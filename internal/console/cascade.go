package console

import (
	"cmp"
	"net/url"
	"slices"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/apiclient"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/report"
)

// cascadesView is a page of the list of cascades.
type cascadesView struct {
	Outcome  string
	Outcomes []string
	Items    []api.ShownCascade
	Next     string // the query of the next page
}

// Live implements [live].
func (v cascadesView) Live() bool { return true }

func cascades(q request) (any, error) {
	query := url.Values{"limit": {"100"}}
	v := cascadesView{
		Outcome: q.URL.Query().Get("outcome"), Outcomes: []string{"failed", "running", "pending", "completed", "cancelled"},
	}
	for _, name := range []string{"outcome", "cursor"} {
		if value := q.URL.Query().Get(name); value != "" {
			query.Set(name, value)
		}
	}
	page, err := get[apiclient.Page[api.ShownCascade]](q, q.of("/cascades?"+query.Encode()))
	if err != nil {
		return nil, err
	}
	v.Items = page.Items
	if page.Next != "" {
		query.Set("cursor", page.Next)
		query.Del("limit")
		v.Next = query.Encode()
	}
	return v, nil
}

// cascadeView is the page of one cascade.
type cascadeView struct {
	api.ShownCascade
	Rows     []cascadeRow
	More     bool // whether there are more credentials than the page shows
	Acts     []cascade.Done
	Holds    []cascade.Hold // that the cascade waits for
	Waivers  []cascade.Waiver
	Timeline timeline
	Workflow string // the URL in Temporal's UI, or ""
}

// cascadeRow is a credential of a cascade, with what it waits for.
type cascadeRow struct {
	report.Row
	Waits *api.Waiting
}

// Seconds returns the time to the death, or 0.
func (v cascadeView) Seconds(r cascadeRow) float64 {
	if r.DeadAt == nil {
		return 0
	}
	return r.DeadAt.Sub(v.CreatedAt).Seconds()
}

// Title implements [titled].
func (v cascadeView) Title() string {
	return "Cascade of " + cmp.Or(v.PrincipalName, v.Principal.String())
}

// Live implements [live].
func (v cascadeView) Live() bool { return v.ClosedAt == nil }

// Rerunnable reports whether the cascade can run again.
func (v cascadeView) Rerunnable() bool { return v.Outcome == "failed" || v.Outcome == "cancelled" }

// Waivable reports whether the end of a credential can be waived.
func (r cascadeRow) Waivable() bool {
	return r.State == credential.Failed || r.State == credential.Ending || r.State == credential.Waived
}

// maxCascadeRows limits the credentials on the page of a cascade.
const maxCascadeRows = 1000

func (s *Server) cascade(q request) (any, error) {
	at := q.of("/cascades/" + url.PathEscape(chi.URLParam(q.Request, "id")))
	shown, err := get[api.ShownCascade](q, at)
	if err != nil {
		return nil, err
	}
	v := cascadeView{ShownCascade: shown, Workflow: s.workflow(shown.Cascade)}
	v.Acts, err = apiclient.All[cascade.Done](q.Context(), q.Client, at+"/acts", url.Values{}, maxCascadeRows)
	if err != nil {
		return nil, err
	}
	if err := v.addApprovals(q); err != nil {
		return nil, err
	}
	items, err := apiclient.All[api.ShownItem](q.Context(), q.Client, q.of("/credentials"),
		url.Values{"cascade": {shown.ID.String()}, "limit": {"500"}}, maxCascadeRows+1)
	if err != nil {
		return nil, err
	}
	records, err := apiclient.All[evidence.Record](q.Context(), q.Client, at+"/evidence", url.Values{"limit": {"500"}}, 0)
	if err != nil {
		return nil, err
	}
	v.More = len(items) > maxCascadeRows
	v.addRows(items[:min(len(items), maxCascadeRows)], evidence.Proofs(records))
	return v, nil
}

// addApprovals adds what an approver has to decide about the cascade.
func (v *cascadeView) addApprovals(q request) error {
	waivers, err := list[cascade.Waiver](q, q.of(openWaivers))
	if err != nil {
		return err
	}
	for _, w := range waivers {
		if w.Cascade == v.ID {
			v.Waivers = append(v.Waivers, w)
		}
	}
	if v.Held {
		v.Holds, err = openHolds(q)
	}
	return err
}

// addRows adds the credentials, first those that are not dead.
func (v *cascadeView) addRows(items []api.ShownItem, proofs map[uuid.UUID]evidence.Proof) {
	for _, item := range items {
		row := cascadeRow{Row: report.Row{ShownItem: item, Proof: proofs[item.ID]}}
		if n := slices.IndexFunc(v.Waiting, func(w api.Waiting) bool { return w.Item != nil && *w.Item == item.ID }); n >= 0 {
			row.Waits = &v.Waiting[n]
		}
		v.Rows = append(v.Rows, row)
	}
	slices.SortStableFunc(v.Rows, func(a, b cascadeRow) int {
		if a.Proven() != b.Proven() {
			if a.Proven() {
				return 1
			}
			return -1
		}
		return cmp.Compare(v.Seconds(a), v.Seconds(b))
	})
	for _, r := range v.Rows {
		v.Timeline.add(v.CreatedAt, r.Reference, string(r.State), r.EndedAt, r.DeadAt)
	}
	v.Timeline.scale()
}

// workflow returns the URL of a cascade's workflow in Temporal's UI, or "".
func (s *Server) workflow(c cascade.Cascade) string {
	if s.TemporalUI == "" {
		return ""
	}
	link := s.TemporalUI + "/namespaces/" + url.PathEscape(s.Namespace) + "/workflows/" + url.PathEscape(c.WorkflowID)
	if c.RunID != nil {
		link += "/" + url.PathEscape(*c.RunID) + "/history"
	}
	return link
}
