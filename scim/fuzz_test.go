package scim

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The parsers meet whatever a client sends: each ends, and says so in SCIM's terms.

func wantClientError(t *testing.T, err error) {
	t.Helper()
	if e := toError(err); err != nil && (e.Status < 400 || e.Status > 499) {
		t.Errorf("%v is a %d", err, e.Status)
	}
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		`userName eq "x"`, `externalId eq jyoung`, `emails[type eq "work"].value eq "x"`, `not (active eq true) and (id pr or title sw "a")`,
		`urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager eq "1"`, `meta.lastModified gt "2026-01-01T00:00:00Z"`,
		strings.Repeat("(", 31) + "id pr" + strings.Repeat(")", 31), `x eq "\u00e9"`, `emails[type eq "a" or type eq "b"] pr`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		_, err := parseFilter(UserType(), filter)
		wantClientError(t, err)
	})
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{"active", `emails[type eq "work"].value`, "name.givenName", EnterpriseURN + ":manager", EnterpriseURN, "members[", "id"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		_, err := parsePath(UserType(), path)
		wantClientError(t, err)
	})
}

func FuzzPatch(f *testing.F) {
	for _, seed := range []string{
		`{"Operations":[{"op":"Replace","path":"active","value":"False"}]}`,
		`{"Operations":[{"op":"add","value":{"name.givenName":"x","emails":[{"value":"a"}]}}]}`,
		`{"Operations":[{"op":"remove","path":"emails[type eq \"work\"]"}]}`, `{"Operations":[{"op":"add","path":"roles[primary eq \"True\"].display","value":null}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		raw, err := parseObject([]byte(body))
		if err != nil {
			wantClientError(t, err)
			return
		}
		operations, err := parsePatch(raw)
		if err != nil {
			wantClientError(t, err)
			return
		}
		current := Object{"userName": "ada", "emails": []any{Object{"type": "work", "value": "a@b.c", "primary": true}}}
		before, _ := json.Marshal(current)
		after, err := patch(UserType(), reader{}, current, operations)
		wantClientError(t, err)
		if untouched, _ := json.Marshal(current); string(untouched) != string(before) {
			t.Error("the original was changed")
		}
		if err == nil {
			_, err := toResource(UserType(), after)
			wantClientError(t, err)
		}
	})
}

func FuzzBody(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"a":2}`, strings.Repeat("[", 100), `{"userName":"x","active":"True"}`, "null"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		raw, err := parseObject([]byte(body))
		if err != nil {
			wantClientError(t, err)
			return
		}
		_, err = reader{}.resource(UserType(), raw)
		wantClientError(t, err)
	})
}

// TestMembersAfterAnyPatchAreThoseOfANaiveModel runs sequences of membership
// operations, in the dialects of Okta and Entra, against a set.
func TestMembersAfterAnyPatchAreThoseOfANaiveModel(t *testing.T) {
	ids := []string{
		"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002", "00000000-0000-4000-8000-000000000003",
	}
	rapid.Check(t, func(t *rapid.T) {
		group := Object{"displayName": "team"}
		model := map[string]bool{}
		for range rapid.IntRange(1, 8).Draw(t, "operations") {
			id := rapid.SampledFrom(ids).Draw(t, "id")
			var o operation
			switch rapid.SampledFrom([]string{"add", "replace", "filter", "value", "all", "empty"}).Draw(t, "kind") {
			case "add":
				o = operation{op: "add", path: "members", hasPath: true, value: []any{map[string]any{"value": id, "$ref": nil}}, hasValue: true}
				model[id] = true
			case "replace":
				o = operation{op: "replace", value: map[string]any{"members": []any{map[string]any{"value": id}}}, hasValue: true}
				model = map[string]bool{id: true}
			case "filter":
				o = operation{op: "remove", path: `members[value eq "` + id + `"]`, hasPath: true}
				delete(model, id)
			case "value":
				o = operation{op: "remove", path: "members", hasPath: true, value: []any{map[string]any{"value": id}}, hasValue: true}
				delete(model, id)
			case "all":
				o = operation{op: "remove", path: "members", hasPath: true}
				model = map[string]bool{}
			case "empty":
				o = operation{op: "remove", path: "members", hasPath: true, value: []any{}, hasValue: true}
			}
			var err error
			if group, err = patch(GroupType(), reader{}, group, []operation{o}); err != nil {
				t.Fatal(err)
			}
			list, _ := group["members"].([]any)
			got := map[string]bool{}
			for _, m := range list {
				got[m.(Object)["value"].(string)] = true
			}
			if len(got) != len(model) || len(list) != len(model) {
				t.Fatalf("members %v, want %v", list, model)
			}
			for id := range model {
				if !got[id] {
					t.Fatalf("members %v, want %v", list, model)
				}
			}
		}
	})
}
