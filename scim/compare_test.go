package scim_test

import (
	"context"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim"
)

const (
	composed   = "jos\u00e9"
	decomposed = "JOSE\u0301"
)

func TestStrings_NormalFormsCompareEqual(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"`+composed+`@example.com","displayName":"`+composed+`","externalId":"`+composed+`","name":{"familyName":"`+composed+`"},
		"emails":[{"type":"work","value":"`+composed+`@example.com"}]}`)
	if a := p.do("POST", "/Users", `{"userName":"`+decomposed+`@example.com"}`); a.status != http.StatusConflict || a.body["scimType"] != "uniqueness" {
		t.Errorf("answered %d: %s", a.status, a.raw)
	}
	team := p.create("/Groups", `{"displayName":"`+decomposed+`","members":["`+id+`"]}`)
	for _, filter := range []string{
		`userName eq "%s@example.com"`, `displayName eq "%s"`, `name.familyName eq "%s"`, `displayName co "%s"`, `displayName sw "%s"`, `displayName ew "%s"`,
		`emails.value eq "%s@example.com"`, `emails[type eq "work"].value eq "%s@example.com"`, `emails[value sw "%s"]`, `displayName ge "%s" and displayName le "%s"`,
		`groups.display eq "%s"`,
	} {
		for _, form := range []string{composed, decomposed} {
			a := p.do("GET", "/Users?filter="+url.QueryEscape(replaceAll(filter, form)), "")
			p.wantJSON(a.body, `{"totalResults":1,"Resources":[{"id":"`+id+`"}]}`)
		}
	}
	p.wantJSON(find(p, "/Users", `externalId eq "jose`+"\u0301"+`"`).body, `{"totalResults":1}`)
	p.wantJSON(find(p, "/Users", `externalId eq "Jos`+"\u00e9"+`"`).body, `{"totalResults":0}`) // caseExact
	p.wantJSON(find(p, "/Groups", `displayName eq "`+composed+`"`).body, `{"totalResults":1,"Resources":[{"id":"`+team+`","displayName":"`+decomposed+`"}]}`)
	p.wantJSON(find(p, "/Groups", `members.display eq "`+decomposed+`"`).body, `{"totalResults":1}`)
	a := p.wantOK("PATCH", "/Users/"+id, patchBody(`{"op":"replace","path":"emails[value eq \"`+decomposed+`@example.com\"].type","value":"home"}`))
	p.wantJSON(a.body, `{"emails":[{"type":"home"}]}`)
}

func replaceAll(filter, form string) string {
	out := ""
	for i := 0; i < len(filter); i++ {
		if filter[i] == '%' {
			out += form
			i++
			continue
		}
		out += string(filter[i])
	}
	return out
}

func TestUserName_SurroundingWhiteSpaceIsRejected(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	id := p.create("/Users", `{"userName":"x y","displayName":" x ","title":" t "}`)
	for _, name := range []string{" x", "x ", "\u00a0x", "x\u3000"} {
		p.wantRefused("POST", "/Users", `{"userName":"`+name+`"}`, "invalidValue")
		p.wantRefused("PUT", "/Users/"+id, `{"userName":"`+name+`"}`, "invalidValue")
		p.wantRefused("POST", "/Agents", `{"agentUserName":"`+name+`"}`, "invalidValue")
	}
	p.wantJSON(p.do("GET", "/Users/"+id, "").body, `{"userName":"x y","displayName":" x ","title":" t "}`)
}

// TestRefold_ReportsCollisionsAndKeepsResources starts from keys of an older version, which
// treated the two normal forms of a name as two names.
func TestRefold_ReportsCollisionsAndKeepsResources(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	first := p.create("/Users", `{"userName":"`+composed+`","displayName":"One"}`)
	second := p.create("/Users", `{"userName":"other","displayName":"Two"}`)
	team := p.create("/Groups", `{"displayName":"Team"}`)
	conn := p.connect()
	for _, sql := range []string{
		`update resources set folded = null`,
		`update resources set unique_name = lower('` + decomposed + `'), document = document || jsonb_build_object('userName', '` + decomposed + `') where unique_name = 'other'`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	keyer := func(ctx context.Context, id uuid.UUID) (directory.Keyer, error) {
		declared, err := tenant.ReadSchemas(ctx, conn, id)
		if err != nil {
			return nil, err
		}
		return scim.NewKeyer(declared)
	}
	n, collisions, err := directory.Refold(t.Context(), conn, keyer)
	if err != nil || n != 3 || len(collisions) != 1 {
		t.Fatalf("refolded %d resources with the collisions %v (%v), want 3 and 1", n, collisions, err)
	}
	if c := collisions[0]; c.ID.String() != second || c.Other.String() != first || c.Tenant != "acme" {
		t.Errorf("got the collision %s, want the second user with the first", c)
	}
	if n, _, err := directory.Refold(t.Context(), conn, keyer); n != 0 || err != nil {
		t.Errorf("the second run refolded %d resources (%v), want 0", n, err)
	}
	p.wantJSON(find(p, "/Users", `displayName eq "two"`).body, `{"totalResults":1,"Resources":[{"id":"`+second+`"}]}`)
	p.wantJSON(find(p, "/Groups", `displayName eq "TEAM"`).body, `{"totalResults":1,"Resources":[{"id":"`+team+`"}]}`)
	p.wantOK("PATCH", "/Users/"+second, patchBody(`{"op":"replace","path":"active","value":false}`))
	if !p.restricted(second) {
		t.Error("the second user was not restricted")
	}
	var kept string
	if err := p.row(`select unique_name from resources where id = $1`, second).Scan(&kept); err != nil || kept != "jose\u0301" {
		t.Errorf("the second user has the key %q (%v)", kept, err)
	}
}
