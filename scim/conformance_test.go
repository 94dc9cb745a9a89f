package scim_test

import (
	"net/http"
	"testing"

	"github.com/leaverhq/leaver/internal/conformance"
	"github.com/leaverhq/leaver/internal/tenant"
)

// TestConformance runs our own probe, which anyone can run against any provider,
// in each profile; a tenant's own schema is tried like the built-in ones.
func TestConformance(t *testing.T) {
	for _, profile := range tenant.Profiles() {
		t.Run(string(profile), func(t *testing.T) {
			t.Parallel()
			p := newProvider(t, profile)
			p.declare("User", claimsSchema)
			results, err := conformance.Run(t.Context(), conformance.Target{URL: p.url, Token: p.token, Client: http.DefaultClient}, conformance.Sets(), func(r conformance.Result) {
				if r.Outcome != conformance.Passed {
					t.Errorf("%s: %s %s: %s", r.Set, r.Name, r.Outcome, r.Detail)
				}
			})
			if err != nil || len(results) < 50 {
				t.Fatalf("%d results, %v", len(results), err)
			}
			if a := p.do("GET", "/?count=0", ""); a.body["totalResults"] != 0.0 {
				t.Errorf("the probe left %v resources behind", a.body["totalResults"])
			}
		})
	}
}
