package scim_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/tenant"
)

func TestErrors_InvalidRequestReturnsSCIMError(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada@example.com"}`)
	for name, c := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
		want               string
	}{
		"not JSON":           {method: "POST", path: "/Users", body: `{`, status: 400, want: `{"scimType":"invalidSyntax"}`},
		"a list":             {method: "POST", path: "/Users", body: `[]`, status: 400, want: `{"scimType":"invalidSyntax"}`},
		"a duplicate key":    {method: "POST", path: "/Users", body: `{"userName":"a","userName":"b"}`, status: 400, want: `{"scimType":"invalidSyntax"}`},
		"a key in two cases": {method: "POST", path: "/Users", body: `{"userName":"a","USERNAME":"b"}`, status: 400, want: `{"scimType":"invalidSyntax"}`},
		"nested 40 deep":     {method: "POST", path: "/Users", body: strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40), status: 400, want: `{"scimType":"invalidSyntax"}`},
		"a wrong type":       {method: "POST", path: "/Users", body: `{"userName":{"x":1}}`, status: 400, want: `{"scimType":"invalidValue"}`},
		"an invalid boolean": {method: "POST", path: "/Users", body: `{"userName":"x","active":"maybe"}`, status: 400, want: `{"scimType":"invalidValue"}`},
		"an empty name":      {method: "POST", path: "/Users", body: `{"userName":" "}`, status: 400, want: `{"scimType":"invalidValue"}`},
		"a name of 2 KB":     {method: "POST", path: "/Users", body: `{"userName":"` + strings.Repeat("x", 2048) + `"}`, status: 400, want: `{"scimType":"invalidValue"}`},
		"U+0000":             {method: "POST", path: "/Users", body: `{"userName":"a\u0000b"}`, status: 400, want: `{"scimType":"invalidValue"}`},
		"2 MB":               {method: "POST", path: "/Users", body: `{"userName":"` + strings.Repeat("x", 2<<20) + `"}`, status: 413, want: `{"status":"413"}`},
		"text":               {method: "POST", path: "/Users", body: `x`, headers: []string{"Content-Type", "text/plain"}, status: 415},
		"an unknown id":      {method: "GET", path: "/Users/00000000-0000-4000-8000-000000000000", status: 404},
		"not a UUID":         {method: "GET", path: "/Users/1", status: 404},
		"a user as a group":  {method: "GET", path: "/Groups/" + ada, status: 404},
		"a wrong method":     {method: "POST", path: "/ServiceProviderConfig", body: "garbage", status: 405, want: `{"status":"405"}`},
		"a bad count":        {method: "GET", path: "/Users?count=x", status: 400},
		"an unknown op":      {method: "PATCH", path: "/Users/" + ada, body: patchBody(`{"op":"destroy","path":"active"}`), status: 400, want: `{"scimType":"invalidSyntax"}`},
		"no path to remove":  {method: "PATCH", path: "/Users/" + ada, body: patchBody(`{"op":"remove"}`), status: 400, want: `{"scimType":"noTarget"}`},
		"a bad path":         {method: "PATCH", path: "/Users/" + ada, body: patchBody(`{"op":"add","path":"emails[","value":1}`), status: 400, want: `{"scimType":"invalidPath"}`},
		"a deep path":        {method: "PATCH", path: "/Users/" + ada, body: patchBody(`{"op":"add","path":"` + strings.Repeat("(", 1000) + `","value":1}`), status: 400, want: `{"scimType":"invalidPath"}`},
		"no operations":      {method: "PATCH", path: "/Users/" + ada, body: patchBody(``), status: 400, want: `{"scimType":"invalidSyntax"}`},
		"1,001 operations":   {method: "PATCH", path: "/Users/" + ada, body: patchBody(strings.TrimSuffix(strings.Repeat(`{"op":"remove","path":"title"},`, 1001), ",")), status: 400, want: `{"scimType":"tooMany"}`},
		"required removed":   {method: "PATCH", path: "/Users/" + ada, body: patchBody(`{"op":"remove","path":"userName"}`), status: 400, want: `{"scimType":"invalidValue"}`},
		"a password filter":  {method: "GET", path: `/Users?filter=password+sw+%22a%22`, status: 400, want: `{"scimType":"invalidFilter"}`},
		"a bad filter":       {method: "GET", path: `/Users?filter=userName+eq`, status: 400, want: `{"scimType":"invalidFilter"}`},
		"an unknown filter":  {method: "GET", path: `/Users?filter=shoeSize+eq+4`, status: 400, want: `{"scimType":"invalidFilter"}`},
		"a stale version":    {method: "PATCH", path: "/Users/" + ada, body: patchBody(`{"op":"add","path":"title","value":"x"}`), headers: []string{"If-Match", `W/"9"`}, status: 412},
		"the Me endpoint":    {method: "GET", path: "/Me", status: 501},
	} {
		t.Run(name, func(t *testing.T) {
			a := p.do(c.method, c.path, c.body, c.headers...)
			if a.status != c.status {
				t.Fatalf("answered %d, want %d: %s", a.status, c.status, a.raw)
			}
			p.wantJSON(a.body, `{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"]}`)
			if c.want != "" {
				p.wantJSON(a.body, c.want)
			}
			for member := range a.body {
				if !slices.Contains([]string{"schemas", "status", "scimType", "detail"}, member) {
					t.Errorf("the error has the member %q, which RFC 7644 section 3.12 does not define", member)
				}
			}
		})
	}
	if a := p.do("GET", "/Users/"+ada, ""); a.body["meta"].(map[string]any)["version"] != `W/"1"` {
		t.Errorf("the user was changed: %s", a.raw)
	}
}

func TestAuth_ExpiredOrRevokedTokenIsRejected(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	expired, secret, err := p.auth.Issue(t.Context(), p.tenant.ID, auth.NewToken{Class: auth.ClassSCIM, TTL: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	valid, revoked, err := p.auth.Issue(t.Context(), p.tenant.ID, auth.NewToken{Class: auth.ClassSCIM})
	if err != nil {
		t.Fatal(err)
	}
	if a := p.do("GET", "/Users", "", "Authorization", "bearer "+revoked); a.status != http.StatusOK {
		t.Fatalf("before its revocation: %d (token %s)", a.status, expired.ID)
	}
	if err := p.auth.Revoke(t.Context(), p.tenant.ID, valid.ID); err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{"expired": secret, "revoked": revoked, "cut": p.token[:len(p.token)-1], "empty": ""} {
		a := p.do("GET", "/Users", "", "Authorization", "Bearer "+token)
		if a.status != http.StatusUnauthorized || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d, want 401 with WWW-Authenticate", what, a.status)
		}
	}
}

func TestCreate_ParallelPostsOfOneNameCreateOneUser(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	counts := p.atOnce(50, func(int) int { return p.status("POST", "/Users", `{"userName":"ada@example.com"}`) })
	if counts[201] != 1 || counts[409] != 49 {
		t.Errorf("statuses %v, want one 201 and 49 times 409", counts)
	}
}

// TestGroups_ParallelPatchesKeepAllMembers sends one request for each member in parallel, as
// SailPoint does.
func TestGroups_ParallelPatchesKeepAllMembers(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	team := p.create("/Groups", `{"displayName":"team"}`)
	const n = 20
	var all sync.WaitGroup
	for i := range n {
		user := p.create("/Users", `{"userName":"u`+string(rune('a'+i))+`"}`)
		all.Go(func() {
			if a := p.do("PATCH", "/Groups/"+team, patchBody(`{"op":"add","path":"members","value":[{"value":"`+user+`"}]}`)); a.status != http.StatusOK {
				t.Errorf("answered %d: %s", a.status, a.raw)
			}
		})
	}
	all.Wait()
	if members := p.do("GET", "/Groups/"+team, "").body["members"].([]any); len(members) != n {
		t.Errorf("%d members, want %d", len(members), n)
	}
}

func TestAgents_ReactivationRequiresVersion(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	ada := p.create("/Users", `{"userName":"ada@example.com"}`)
	agent := p.create("/Agents", `{"name":"writer","owners":["`+ada+`"],"active":true}`)
	back := patchBody(`{"op":"replace","path":"active","value":true}`)
	for _, away := range []string{patchBody(`{"op":"replace","path":"active","value":false}`), patchBody(`{"op":"remove","path":"active"}`)} {
		if a := p.do("PATCH", "/Agents/"+agent, away); a.status != http.StatusOK {
			t.Fatalf("answered %d: %s", a.status, a.raw)
		}
	}
	if a := p.do("PATCH", "/Agents/"+agent, back); a.status != http.StatusConflict {
		t.Errorf("without If-Match: %d, want 409", a.status)
	}
	if a := p.do("PATCH", "/Agents/"+agent, back, "If-Match", `W/"1"`); a.status != http.StatusPreconditionFailed {
		t.Errorf("with a stale version: %d, want 412", a.status)
	}
	if !p.restricted(agent) {
		t.Error("the restriction was lifted")
	}
	if a := p.do("PATCH", "/Agents/"+agent, back, "If-Match", `W/"3"`); a.status != http.StatusOK || p.restricted(agent) {
		t.Errorf("with the current version: %d, restricted %t, want 200 and false", a.status, p.restricted(agent))
	}
}

// TestDeactivation_SucceedsWithIgnoredAttributes: an IdP that gets a 400 may not retry the
// deactivation.
func TestDeactivation_SucceedsWithIgnoredAttributes(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	for name, operations := range map[string]string{
		"an unknown attribute": `{"op":"add","path":"shoeSize","value":44},{"op":"replace","path":"active","value":false}`,
		"an unknown extension": `{"op":"add","path":"urn:example:acme:2.0:User:badge","value":"1"},{"op":"replace","path":"active","value":"False"}`,
		"a read-only one":      `{"op":"replace","value":{"active":false,"groups":[{"value":"x"}],"id":"y","meta":{"version":"z"}}}`,
	} {
		id := p.create("/Users", `{"userName":"`+name+`"}`)
		if a := p.do("PATCH", "/Users/"+id, patchBody(operations)); a.status != http.StatusOK || !p.restricted(id) {
			t.Errorf("%s: %d, restricted %t: %s", name, a.status, p.restricted(id), a.raw)
		}
	}
	owner := p.create("/Users", `{"userName":"owner"}`)
	agent := p.create("/Agents", `{"agentUserName":"left","owners":[{"value":"`+owner+`"}]}`)
	p.do("DELETE", "/Users/"+owner, "")
	if a := p.do("PATCH", "/Agents/"+agent, patchBody(`{"op":"replace","path":"active","value":false}`)); a.status != http.StatusOK || !p.restricted(agent) {
		t.Errorf("an agent whose owner is deleted: %d: %s", a.status, a.raw)
	}
}
