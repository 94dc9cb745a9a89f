package patch

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/leaverhq/leaver/scim/filter"
	"github.com/leaverhq/leaver/scim/schema"
)

// TestPatch_MembersMatchModel compares PATCHes of membership operations, in the formats of
// Okta and Entra, with a set.
func TestPatch_MembersMatchModel(t *testing.T) {
	ids := []string{
		"00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002", "00000000-0000-4000-8000-000000000003",
	}
	rapid.Check(t, func(t *rapid.T) {
		stored, model := map[string]bool{}, map[string]bool{}
		for range rapid.IntRange(1, 4).Draw(t, "patches") {
			var operations []Operation
			for range rapid.IntRange(1, 5).Draw(t, "operations") {
				id := rapid.SampledFrom(ids).Draw(t, "id")
				kind := rapid.SampledFrom([]string{"add", "string", "replace", "filter", "either", "value", "all", "empty"}).Draw(t, "kind")
				operations = append(operations, memberOperation(kind, id, ids[0]))
				applyToModel(model, kind, id, ids[0])
			}
			_, delta, err := Apply(schema.GroupType(), Reader{}, schema.Object{"displayName": "team"}, operations, noMembers)
			if err != nil {
				t.Fatal(err)
			}
			applyDelta(stored, delta)
			if diff := cmp.Diff(model, stored); diff != "" {
				t.Fatalf("the members differ from the model (-model +members):\n%s", diff)
			}
		}
	})
}

func memberOperation(kind, id, other string) Operation {
	element := []any{map[string]any{"value": id, "$ref": nil}}
	switch kind {
	case "add":
		return Operation{Op: "add", Path: "members", HasPath: true, Value: element, HasValue: true}
	case "string":
		return Operation{Op: "add", Path: "members", HasPath: true, Value: id, HasValue: true}
	case "replace":
		return Operation{Op: "replace", Value: map[string]any{"members": element}, HasValue: true}
	case "filter":
		return Operation{Op: "remove", Path: `members[value eq "` + id + `"]`, HasPath: true}
	case "either":
		return Operation{Op: "remove", Path: `members[value eq "` + id + `" or value eq "` + other + `"]`, HasPath: true}
	case "value":
		return Operation{Op: "remove", Path: "members", HasPath: true, Value: element, HasValue: true}
	case "empty":
		return Operation{Op: "remove", Path: "members", HasPath: true, Value: []any{}, HasValue: true}
	}
	return Operation{Op: "remove", Path: "members", HasPath: true}
}

func applyToModel(model map[string]bool, kind, id, other string) {
	switch kind {
	case "add", "string":
		model[id] = true
	case "replace":
		clear(model)
		model[id] = true
	case "filter", "value":
		delete(model, id)
	case "either":
		delete(model, id)
		delete(model, other)
	case "all":
		clear(model)
	}
}

func applyDelta(set map[string]bool, d Delta) {
	if d.Clear {
		clear(set)
	}
	for _, id := range d.Removed() {
		delete(set, id.String())
	}
	for _, id := range d.Added() {
		set[id.String()] = true
	}
}

// TestPatch_AttributesMatchModel compares random operations on simple and multi-valued
// attributes with a model that does not use schemas.
func TestPatch_AttributesMatchModel(t *testing.T) {
	types := []string{"work", "home"}
	rapid.Check(t, func(t *rapid.T) {
		object := schema.Object{"userName": "ada"}
		title, emails := "", map[string]string{}
		for range rapid.IntRange(1, 10).Draw(t, "operations") {
			kind := rapid.SampledFrom(types).Draw(t, "type")
			value := rapid.StringMatching(`[a-z]{1,4}`).Draw(t, "value")
			var o Operation
			switch rapid.SampledFrom([]string{"title", "no title", "email", "replace emails", "no email", "no emails"}).Draw(t, "operation") {
			case "title":
				o = Operation{Op: rapid.SampledFrom([]string{"add", "replace"}).Draw(t, "op"), Value: map[string]any{"title": value}, HasValue: true}
				title = value
			case "no title":
				o, title = Operation{Op: "remove", Path: "title", HasPath: true}, ""
			case "email":
				o = Operation{Op: "add", Path: `emails[type eq "` + kind + `"].value`, HasPath: true, Value: value, HasValue: true}
				emails[kind] = value
			case "replace emails":
				o = Operation{Op: "replace", Path: "emails", HasPath: true, Value: []any{map[string]any{"type": kind, "value": value}}, HasValue: true}
				emails = map[string]string{kind: value}
			case "no email":
				o = Operation{Op: "remove", Path: `emails[type eq "` + kind + `"]`, HasPath: true}
				delete(emails, kind)
			case "no emails":
				o, emails = Operation{Op: "remove", Path: "emails", HasPath: true}, map[string]string{}
			}
			var err error
			if object, _, err = Apply(schema.UserType(), Reader{}, object, []Operation{o}, noMembers); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, e := range schema.ListOf(object["emails"]) {
				got[e.(schema.Object)["type"].(string)] = e.(schema.Object)["value"].(string)
			}
			have, _ := object["title"].(string)
			if diff := cmp.Diff(emails, got); diff != "" || have != title {
				t.Fatalf("title %q, want %q; emails:\n%s", have, title, diff)
			}
		}
	})
}

func TestDelta_LastOperationWins(t *testing.T) {
	a, b := uuid.New(), uuid.New()
	var d Delta
	d.Add(a)
	d.Remove(a)
	d.Add(b)
	d.Remove(b)
	d.Add(b)
	if !slices.Equal(d.Added(), []uuid.UUID{b}) || !slices.Equal(d.Removed(), []uuid.UUID{a}) {
		t.Errorf("added %v, removed %v", d.Added(), d.Removed())
	}
}

func noMembers([]uuid.UUID, filter.Condition) ([]uuid.UUID, error) { return nil, nil }
