package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/ssf"
	"github.com/leaverhq/leaver/internal/tenant"
)

// installationView is the page of the installation: what is wrong with it, and its tenants.
type installationView struct {
	Problems []health.Problem
	Tenants  []tenant.Tenant
}

// Live implements [live].
func (installationView) Live() bool { return true }

// installation reads the problems that `leaver doctor` lists.
func installation(q request) (any, error) {
	var v installationView
	ready, err := q.readiness()
	if err != nil {
		return v, err
	}
	v.Problems = ready.Problems
	v.Tenants, err = list[tenant.Tenant](q, "/tenants")
	return v, err
}

// attentionView lists the items of a tenant that need an operator or an approver.
type attentionView struct {
	Failed, Open some[api.ShownCascade]
	Holds        []cascade.Hold
	Waivers      []cascade.Waiver
	Unmanaged    some[credential.Unmanaged]
	Streams      []api.StreamView
	Runs         []health.Problem // of the drill and the reconciler
}

// Live implements [live].
func (attentionView) Live() bool { return true }

// Well reports whether nothing needs attention.
func (v attentionView) Well() bool {
	return len(v.Failed.Items)+len(v.Open.Items)+len(v.Holds)+len(v.Waivers)+len(v.Unmanaged.Items)+
		len(v.Streams)+len(v.Runs) == 0
}

func attention(q request) (any, error) {
	var v attentionView
	var err error
	if v.Failed, err = first[api.ShownCascade](q, q.of("/cascades?outcome=failed&limit=100")); err != nil {
		return v, err
	}
	if v.Open, err = first[api.ShownCascade](q, q.of("/cascades?outcome=pending,running&limit=20")); err != nil {
		return v, err
	}
	for i, c := range v.Open.Items {
		if v.Open.Items[i], err = get[api.ShownCascade](q, q.of("/cascades/"+c.ID.String())); err != nil {
			return v, err
		}
	}
	if v.Holds, err = openHolds(q); err != nil {
		return v, err
	}
	if v.Waivers, err = list[cascade.Waiver](q, q.of(openWaivers)); err != nil {
		return v, err
	}
	if v.Unmanaged, err = first[credential.Unmanaged](q, q.of("/unmanaged?limit=100")); err != nil {
		return v, err
	}
	streams, err := list[api.StreamView](q, q.of("/streams"))
	if err != nil {
		return v, err
	}
	for _, s := range streams {
		if s.LastError != "" || s.Status != ssf.Enabled {
			v.Streams = append(v.Streams, s)
		}
	}
	v.Runs = q.problems(health.DrillProblem, health.ReconcilerProblem)
	return v, nil
}

// openWaivers is the list of the waivers that wait for an approver, as long as the API gives it.
const openWaivers = "/waivers?limit=500"

// openHolds returns the holds that are not approved.
func openHolds(q request) (open []cascade.Hold, err error) {
	holds, err := list[cascade.Hold](q, q.of("/holds"))
	for _, h := range holds {
		if h.ApprovedAt == nil {
			open = append(open, h)
		}
	}
	return open, err
}

// connectorsView is the page of the connectors.
type connectorsView struct {
	Connectors []api.ShownConnector
	Problems   []health.Problem // of the connectors' checks
}

// Live implements [live].
func (connectorsView) Live() bool { return true }

func connectorList(q request) (any, error) {
	var v connectorsView
	var err error
	if v.Connectors, err = list[api.ShownConnector](q, "/connectors"); err != nil {
		return v, err
	}
	v.Problems = q.problems(health.ConnectorCheck)
	return v, nil
}

// Failing reports whether a connector did not pass its check.
func (v connectorsView) Failing(connector string) bool {
	return slices.ContainsFunc(v.Problems, func(p health.Problem) bool { return p.Connector == connector })
}

// timingView is the page of the time to zero.
type timingView struct {
	cascade.Timing
	WeekPlot, ConnectorPlot plot
	Targets                 []target
}

// target is a choice of the time within which a leaver's last credential should be proven dead.
type target struct {
	Value  string
	Chosen bool
}

// Live implements [live].
func (timingView) Live() bool { return true }

func timing(q request) (any, error) {
	query := url.Values{}
	if chosen := q.URL.Query().Get("target"); chosen != "" {
		query.Set("target", chosen)
	}
	t, err := get[cascade.Timing](q, q.of("/time-to-zero?"+query.Encode()))
	if err != nil {
		return nil, err
	}
	v := timingView{Timing: t}
	short := strings.NewReplacer("h0m0s", "h", "m0s", "m")
	seconds := []int{60, 300, 900, 3600, 24 * 3600}
	if !slices.Contains(seconds, t.Target) {
		seconds = append(seconds, t.Target)
	}
	for _, s := range seconds {
		v.Targets = append(v.Targets, target{short.Replace((time.Duration(s) * time.Second).String()), s == t.Target})
	}
	for _, w := range t.Weeks {
		v.WeekPlot.add(w.Week.UTC().Format("2 Jan 2006"), w.Times)
	}
	for _, c := range t.Connectors {
		v.ConnectorPlot.add(c.Connector, c.Times)
	}
	v.WeekPlot.scale(t.Target)
	v.ConnectorPlot.scale(t.Target)
	return v, nil
}

// tokensView is the page of a tenant's settings and tokens.
type tokensView struct {
	Settings tenant.Tenant
	Tokens   []auth.Token
	Issuers  []auth.Issuer
}

func tokens(q request) (any, error) {
	var v tokensView
	var err error
	if v.Settings, err = get[tenant.Tenant](q, q.of("")); err != nil {
		return v, err
	}
	if v.Tokens, err = list[auth.Token](q, q.of("/tokens")); err != nil {
		return v, err
	}
	v.Issuers, err = list[auth.Issuer](q, q.of("/issuers"))
	return v, err
}

// readiness is the response of /readyz?verbose.
type readiness struct {
	Problems []health.Problem `json:"diagnoses"` // nil if the API does not authenticate the session
}

// errNoProblems is returned by readiness.
var errNoProblems = errors.New("the API does not show the installation's problems: sign in again")

// healthTTL is how long the diagnosis is kept that the pages of all sessions show.
const healthTTL = 10 * time.Second

// readiness reads /readyz, which is not below the API's path.
func (q request) readiness() (readiness, error) {
	return q.health.Get(q.Context(), struct{}{}, func(ctx context.Context) (r readiness, err error) {
		outside := *q.Client
		outside.Base = strings.TrimSuffix(q.Base, api.BasePath)
		err = outside.Do(ctx, http.MethodGet, "/readyz?verbose", nil, &r)
		if err == nil && r.Problems == nil {
			err = errNoProblems
		}
		return r, err
	})
}

// problems returns the problems of the installation that have one of the codes. If they cannot be read, that is the
// problem: approvals must be possible without the diagnosis.
func (q request) problems(codes ...string) (found []health.Problem) {
	ready, err := q.readiness()
	if err != nil {
		return []health.Problem{{
			Severity: health.Warning, Text: "the installation's problems cannot be read", Fix: err.Error(),
		}}
	}
	for _, p := range ready.Problems {
		if slices.Contains(codes, p.Code) {
			found = append(found, p)
		}
	}
	return found
}
