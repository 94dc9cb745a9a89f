// Package conformance probes a SCIM 2.0 service provider as a client, with the requests that
// Okta and Entra send and with the requirements of RFC 7643 and RFC 7644. It creates its own
// resources and deletes them.
package conformance

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Set is a family of checks.
type Set string

// The sets.
const (
	RFC   Set = "rfc"
	Okta  Set = "okta"
	Entra Set = "entra"
)

// Sets lists all sets.
func Sets() []Set { return []Set{RFC, Okta, Entra} }

// Outcome is the outcome of a check.
type Outcome string

// The outcomes. A check is skipped if the provider declares that it does not support the
// feature.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
)

// Result is the result of one check.
type Result struct {
	Set     Set     `json:"set"`
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	// Detail is what the provider did instead, or why the check was skipped.
	Detail string `json:"detail,omitempty"`
	Millis int64  `json:"milliseconds"`
}

// Target is the provider to probe.
type Target struct {
	URL    string // the SCIM base URL
	Token  string // a bearer token
	Client *http.Client
}

// check tests one behaviour of a provider.
type check struct {
	set  Set
	name string
	run  func(*probe) error
}

// ErrRefused is returned if the provider rejects the token.
var ErrRefused = errors.New("the provider rejected the token")

// skip is returned by a check that does not apply.
type skip struct{ why string }

func (s *skip) Error() string { return s.why }

// Run runs the checks of the sets in order and calls report after each one. It returns an
// error only if the target cannot be probed at all, such as [ErrRefused], or if ctx ends.
func Run(ctx context.Context, t Target, sets []Set, report func(Result)) ([]Result, error) {
	p := &probe{ctx: ctx, target: t, mark: strings.ToLower(rand.Text()[:10])}
	if err := p.discover(); err != nil {
		return nil, fmt.Errorf("read the ServiceProviderConfig of %s: %w", t.URL, err)
	}
	defer p.cleanUp()
	checks := slices.Concat(protocolChecks(), queryChecks(), writeChecks(), attributeChecks(),
		rowChecks(Okta, oktaRows), rowChecks(Entra, entraRows))
	var results []Result
	for _, c := range checks {
		if !slices.Contains(sets, c.set) || ctx.Err() != nil {
			continue
		}
		result := p.check(c)
		results = append(results, result)
		report(result)
	}
	return results, ctx.Err()
}

func (p *probe) check(c check) Result {
	start := time.Now()
	err := c.run(p)
	r := Result{Set: c.set, Name: c.name, Outcome: Passed, Millis: time.Since(start).Milliseconds()}
	var skipped *skip
	switch {
	case errors.As(err, &skipped):
		r.Outcome, r.Detail = Skipped, skipped.why
	case err != nil:
		r.Outcome, r.Detail = Failed, err.Error()
	}
	return r
}
