package scim_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leaverhq/leaver/internal/conformance"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim"
)

// TestConformance_PassesInEveryProfile runs the probe of `leaver scim test` in each profile,
// with a custom schema. The interoperability profile prohibits PATCH operations without a path, which Okta and
// Entra send.
func TestConformance_PassesInEveryProfile(t *testing.T) {
	for _, profile := range tenant.Profiles() {
		t.Run(string(profile), func(t *testing.T) {
			t.Parallel()
			p := newProvider(t, profile)
			p.declare("User", claimsSchema)
			results, err := conformance.Run(t.Context(), conformance.Target{URL: p.url, Token: p.token, Client: http.DefaultClient}, conformance.Sets(), func(r conformance.Result) {
				prohibited := profile == tenant.ProfileInterop && strings.HasSuffix(r.Detail, "requires a path\"}")
				if r.Outcome != conformance.Passed && !prohibited {
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

// TestConformance_FaultFailsOneCheck checks that a provider with one fault fails the check of
// that fault and no other.
func TestConformance_FaultFailsOneCheck(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(query, body string) (status int, answer string) // 0: none
		want  []string
	}{
		"userName is compared with case": {
			fault: func(query, _ string) (int, string) {
				if strings.HasPrefix(query, `filter=userName+eq+%22LEAVER`) {
					return http.StatusOK, `{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":0,"Resources":[]}`
				}
				return 0, ""
			},
			want: []string{"filter: names and values compare without case where the schema says so"},
		},
		"a bare string as manager is rejected": {
			fault: func(_, body string) (int, string) {
				if strings.Contains(body, `:manager","value":"`) && !strings.Contains(body, `:manager","value":""`) {
					return http.StatusBadRequest, `{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"400","scimType":"invalidValue","detail":"want an object"}`
				}
				return 0, ""
			},
			want: []string{"sets the manager by a bare string"},
		},
		"sw is not supported": {
			fault: func(query, _ string) (int, string) {
				if strings.Contains(query, "displayName+sw") {
					return http.StatusBadRequest, `{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"400","scimType":"invalidFilter","detail":"sw"}`
				}
				return 0, ""
			},
			want: []string{"filter: sw"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t, tenant.ProfileDefault)
			handler := p.handler()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				if status, answer := c.fault(r.URL.RawQuery, string(body)); status != 0 {
					w.Header().Set("Content-Type", "application/scim+json")
					w.WriteHeader(status)
					_, _ = io.WriteString(w, answer)
					return
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
				handler.ServeHTTP(w, r)
			}))
			t.Cleanup(server.Close)
			var failed []string
			_, err := conformance.Run(t.Context(), conformance.Target{URL: server.URL + scim.BasePath, Token: p.token, Client: http.DefaultClient}, conformance.Sets(),
				func(r conformance.Result) {
					if r.Outcome == conformance.Failed {
						failed = append(failed, r.Name)
					}
				})
			if diff := cmp.Diff(c.want, failed); diff != "" || err != nil {
				t.Errorf("failed checks (-want +got), %v:\n%s", err, diff)
			}
		})
	}
}
