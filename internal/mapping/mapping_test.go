package mapping_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/mapping"
)

var vocabulary = mapping.Vocabulary{
	User: []mapping.Attribute{
		{Name: "userName", Type: mapping.Text},
		{Name: "userType", Type: mapping.Text},
		{Name: "active", Type: mapping.Bool},
		{Name: "name", Type: mapping.Complex, Sub: []mapping.Attribute{{Name: "givenName", Type: mapping.Text}}},
		{
			Name: "emails", Type: mapping.Complex, MultiValued: true,
			Sub: []mapping.Attribute{{Name: "value", Type: mapping.Text}, {Name: "primary", Type: mapping.Bool}},
		},
	},
	Agent:         []mapping.Attribute{{Name: "agentType", Type: mapping.Text}},
	Enterprise:    []mapping.Attribute{{Name: "department", Type: mapping.Text}},
	EnterpriseURN: "urn:enterprise",
	Claims: map[string][]mapping.Attribute{"urn:example:claims": {
		{Name: "clearedForProdData", Type: mapping.Bool},
		{Name: "level", Type: mapping.Integer},
		{Name: "hired", Type: mapping.Time},
		{Name: "oktaRoles", Type: mapping.Text},
		{Name: "regions", Type: mapping.Text, MultiValued: true},
	}},
}

func ada(groups ...string) mapping.Principal {
	p := mapping.Principal{
		ID: uuid.New(), Type: "User",
		Document: map[string]any{
			"userName": "ada@example.com", "userType": "Employee", "name": map[string]any{"givenName": "Ada"},
			"emails":         []any{map[string]any{"value": "ada@example.com", "primary": true}},
			"urn:enterprise": map[string]any{"department": "Engineering"},
			"urn:example:claims": map[string]any{
				"clearedForProdData": true, "level": 7.0, "hired": "2024-03-01T00:00:00Z",
				"oktaRoles": `{"roles": ["reader", "writer"]}`, "regions": []any{"eu", "us"},
			},
		},
	}
	for _, name := range groups {
		p.Groups = append(p.Groups, mapping.Group{
			ID: uuid.New(), DisplayName: name, ExternalID: "ext-" + name,
			Direct: !strings.HasPrefix(name, "outer"),
		})
	}
	return p
}

func compile(t *testing.T, document string) *mapping.Rules {
	t.Helper()
	rules, err := mapping.Compile(document, vocabulary)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func names(r mapping.Result) map[string]bool {
	found := make(map[string]bool)
	for name := range r.Entitlements {
		found[name] = true
	}
	return found
}

func TestApply_GrantsByRule(t *testing.T) {
	for name, test := range map[string]struct {
		rules string
		want  []string
	}{
		"a group by its displayName, in any case": {
			`{group: Engineering-PROD, team: Engineering}`,
			[]string{"team:Engineering"},
		},
		"a group by a pattern":        {`{group: "eng*-prod", role: developer}`, []string{"role:developer"}},
		"a pattern is the whole name": {`{group: "engineering", role: developer}`, nil},
		"an escaped star":             {`{group: 'engineering\*', role: developer}`, nil},
		"a group by its externalId": {
			`{externalId: ext-engineering-prod, scopes: [deploy, read]}`,
			[]string{"scope:deploy", "scope:read"},
		},
		"an externalId in another case": {`{externalId: EXT-engineering-prod, scopes: [deploy]}`, nil},
		"a group she is not in":         {`{group: sales, team: Sales}`, nil},
		"group and when must both hold": {`{group: engineering-prod, when: '!claims.clearedForProdData', team: E}`, nil},
		"a core attribute": {
			`{when: user.userType == "Employee", team: Staff}`,
			[]string{"team:Staff"},
		},
		"a sub-attribute": {`{when: user.name.givenName == "Ada", team: T}`, []string{"team:T"}},
		"a multi-valued attribute": {
			`{when: 'user.emails.exists(e, e.primary && e.value.endsWith("@example.com"))', team: T}`,
			[]string{"team:T"},
		},
		"the enterprise extension": {`{when: enterprise.department == "Engineering", team: T}`, []string{"team:T"}},
		"a claim of the tenant":    {`{when: claims.clearedForProdData, scope: prod.read}`, []string{"scope:prod.read"}},
		"a number":                 {`{when: claims.level >= 5, team: T}`, []string{"team:T"}},
		"a time": {
			`{when: 'claims.hired < timestamp("2025-01-01T00:00:00Z")', team: T}`,
			[]string{"team:T"},
		},
		"a list": {`{when: '"eu" in claims.regions', team: T}`, []string{"team:T"}},
		"JSON within a string": {
			`{when: '"writer" in json(claims.oktaRoles).roles', role: writer}`,
			[]string{"role:writer"},
		},
		"an extension by its URN": {`{when: 'extensions["urn:example:claims"].level == 7.0', team: T}`, []string{"team:T"}},
		"a group in an expression": {
			`{when: 'groups.exists(g, g.displayName == "engineering-prod" && g.direct)', team: T}`,
			[]string{"team:T"},
		},
		"an indirect group": {
			`{when: 'groups.exists(g, g.displayName == "outer" && !g.direct)', team: T}`,
			[]string{"team:T"},
		},
		"an absent attribute is empty": {
			`{when: 'user.name.givenName != "" && !has(user.active) && !user.active', team: T}`,
			[]string{"team:T"},
		},
		"a user is not an agent": {`{when: 'type == "Agent" || agent.agentType != ""', team: T}`, nil},
		"every principal":        {`{when: "true", teams: [A, B]}`, []string{"team:A", "team:B"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := names(compile(t, "rules:\n  - "+test.rules+"\n").Apply(ada("engineering-prod", "outer")))
			want := make(map[string]bool)
			for _, name := range test.want {
				want[name] = true
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestApply_UnionOfGrantsWithoutDenied(t *testing.T) {
	p := ada("engineering-prod", "contractors")
	got := compile(t, `
rules:
  - {name: engineers, group: engineering-*, team: Engineering, scopes: [deploy, read]}
  - {name: readers, when: claims.clearedForProdData, scopes: [read]}
  - {name: no-deploy, group: contractors, deny: true, scopes: [deploy, launch]}
`).Apply(p)
	engineering := mapping.Source{Rule: "engineers", Group: &p.Groups[0].ID, GroupName: "engineering-prod"}
	want := mapping.Result{
		Entitlements: map[string][]mapping.Source{
			"team:Engineering": {engineering},
			"scope:read":       {engineering, {Rule: "readers", When: "claims.clearedForProdData"}},
		},
		Denied: map[string][]mapping.Source{"scope:deploy": {{
			Rule: "no-deploy", Group: &p.Groups[1].ID,
			GroupName: "contractors",
		}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestApply_FailingRule checks that a rule that cannot be evaluated grants nothing, and denies if
// it is a deny rule.
func TestApply_FailingRule(t *testing.T) {
	p := ada()
	p.Document["urn:example:claims"].(map[string]any)["oktaRoles"] = `{"secret-role"`
	got := compile(t, `
rules:
  - {name: staff, when: "true", scopes: [read, deploy]}
  - {name: writers, when: '"writer" in json(claims.oktaRoles).roles', role: writer}
  - {name: banned, when: '"banned" in json(claims.oktaRoles).roles', deny: true, scope: deploy}
`).Apply(p)
	if diff := cmp.Diff(map[string]bool{"scope:read": true}, names(got)); diff != "" {
		t.Error(diff)
	}
	if len(got.Failed) != 2 || got.Failed[0].Rule != "writers" ||
		!strings.Contains(got.Failed[0].Reason, "the claim is not JSON") {
		t.Errorf("got failures %+v, want writers and banned", got.Failed)
	}
	if strings.Contains(got.Failed[0].Reason, "secret") {
		t.Errorf("the reason quotes the claim: %s", got.Failed[0].Reason)
	}
}

func TestCompile_ErrorHasPosition(t *testing.T) {
	for name, test := range map[string]struct {
		document string
		want     mapping.Error
	}{
		"invalid YAML":      {"rules:\n  - {group: x", mapping.Error{Line: 1, Column: 1, Reason: "invalid YAML"}},
		"an empty document": {"", mapping.Error{Line: 1, Column: 1, Reason: "empty"}},
		"another member at the top": {"rulez: []", mapping.Error{
			Line: 1, Column: 1,
			Reason: "expected a mapping with one member, rules",
		}},
		"an unknown member": {"rules:\n  - {group: x, teem: y}", mapping.Error{
			Line: 2, Column: 16,
			Reason: `unknown member "teem"`,
		}},
		"no entitlement": {"rules:\n  - {group: x}", mapping.Error{Line: 2, Column: 5, Reason: "needs a team"}},
		"no condition":   {"rules:\n  - {team: x}", mapping.Error{Line: 2, Column: 5, Reason: "needs group"}},
		"a duplicate name": {
			"rules:\n  - {group: x, team: y}\n  - {group: x, team: z}",
			mapping.Error{Line: 3, Column: 5, Reason: "duplicate rule name"},
		},
		"an alias": {
			"rules:\n  - &a {group: x, team: y}\n  - *a",
			mapping.Error{Line: 3, Column: 5, Reason: "a mapping such as"},
		},
		"an incomplete expression": {
			"rules:\n  - when: claims.level >\n    team: x",
			mapping.Error{Line: 2, Column: 25, Reason: "Syntax error"},
		},
		"an unknown attribute": {
			"rules:\n  - {when: claims.cleared, team: x}",
			mapping.Error{Line: 2, Column: 18, Reason: "undefined field 'cleared'"},
		},
		"an error in quotes": {
			"rules:\n  - {when: 'claims.cleared', team: x}",
			mapping.Error{Line: 2, Column: 19, Reason: "undefined field 'cleared'"},
		},
		"an error in a block": {
			"rules:\n  - team: x\n    when: |\n      claims.level > 3 &&\n      user.nickName == \"\"\n",
			mapping.Error{Line: 5, Column: 11, Reason: "undefined field 'nickName'"},
		},
		"an unknown sub-attribute": {
			"rules:\n  - {when: user.name.middle == '', team: x}",
			mapping.Error{Line: 2, Column: 21, Reason: "undefined field 'middle'"},
		},
		"an unknown variable": {
			"rules:\n  - {when: usr.name == '', team: x}",
			mapping.Error{Line: 2, Column: 12, Reason: "undeclared reference to 'usr'"},
		},
		"not a boolean": {
			"rules:\n  - {when: claims.level, team: x}",
			mapping.Error{Line: 2, Column: 12, Reason: "expected a boolean"},
		},
		"a comparison of two types": {
			"rules:\n  - {when: claims.level == 'a', team: x}",
			mapping.Error{Line: 2, Column: 25, Reason: "no matching overload"},
		},
		"too expensive": {
			"rules:\n  - {when: 'groups.all(a, groups.all(b, groups.all(c, groups.exists(d, a == b && c == d))))', " +
				"team: x}",
			mapping.Error{Line: 2, Column: 12, Reason: "the limit is 100000"},
		},
		"an object": {
			"rules:\n  - {when: 'User{userName: \"a\"}.active', team: x}",
			mapping.Error{Line: 2, Column: 12, Reason: "must not create objects"},
		},
		"too deep": {"rules:\n  - {name: deep, when: '" + strings.Repeat("(", 200) + "true" +
			strings.Repeat(")", 200) + "', team: x}", mapping.Error{Line: 2, Column: 24, Reason: "recursion"}},
		"too long an expression": {"rules:\n  - {when: '" + strings.Repeat("true && ", 600) +
			"true', team: x}", mapping.Error{Line: 2, Column: 12, Reason: "at most 4096 bytes"}},
		"a pattern that does not end": {"rules:\n  - {group: 'a\\', team: x}", mapping.Error{
			Line: 2, Column: 13,
			Reason: "ends in a backslash",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := mapping.Compile(test.document, vocabulary)
			var got *mapping.Error
			if !errors.As(err, &got) {
				t.Fatalf("got error %v, want a mapping.Error", err)
			}
			if got.Line != test.want.Line || got.Column != test.want.Column || !strings.Contains(got.Reason, test.want.Reason) {
				t.Errorf("got %v, want %v", got, &test.want)
			}
		})
	}
}

// TestApply_StopsAtCostLimit evaluates a rule whose cost is higher than its estimate.
func TestApply_StopsAtCostLimit(t *testing.T) {
	p := ada()
	for range 2000 {
		p.Groups = append(p.Groups, mapping.Group{ID: uuid.New(), DisplayName: strings.Repeat("x", 10_000)})
	}
	got := compile(t, `
rules:
  - {name: expensive, when: 'groups.exists(g, g.displayName.contains("y"))', team: x}
`).Apply(p)
	if len(got.Entitlements) != 0 || len(got.Failed) != 1 || !strings.Contains(got.Failed[0].Reason, "cost limit") {
		t.Errorf("got %+v, want no entitlements and a failure by the cost limit", got)
	}
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		"rules: []", "rules:\n  - {group: 'a*', team: x}",
		"rules:\n  - when: json(claims.oktaRoles).roles.exists(r, r == 'x')\n    scopes: [a, b]",
		"rules:\n  - &a {when: |\n  x}", "a: &a [*a]", "rules: !!binary x",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, document string) {
		rules, err := mapping.Compile(document, vocabulary)
		if err != nil {
			var place *mapping.Error
			if !errors.As(err, &place) || place.Line < 1 || place.Column < 1 {
				t.Fatalf("error without a position: %v", err)
			}
			return
		}
		rules.Apply(ada("engineering-prod"))
	})
}

func BenchmarkApply(b *testing.B) {
	rules, err := mapping.Compile(`
rules:
  - {group: "eng*-prod", team: Engineering}
  - {when: 'claims.clearedForProdData && groups.exists(g, g.displayName == "engineering-prod")', scopes: [deploy]}
`, vocabulary)
	if err != nil {
		b.Fatal(err)
	}
	p := ada("sales", "engineering-prod")
	for b.Loop() {
		rules.Apply(p)
	}
}
