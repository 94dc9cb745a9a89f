package scim

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/scim/filter"
	"github.com/leaverhq/leaver/scim/patch"
	"github.com/leaverhq/leaver/scim/schema"
)

// wantClientError fails unless err is nil or a 4xx: parsers report any invalid input as a
// client error.
func wantClientError(t *testing.T, err error) {
	t.Helper()
	if e := toError(err); err != nil && (e.Status < 400 || e.Status > 499) {
		t.Errorf("%v has the status %d, want 4xx", err, e.Status)
	}
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
		raw, err := schema.ParseObject([]byte(body))
		if err != nil {
			wantClientError(t, err)
			return
		}
		operations, err := patch.Parse(raw)
		if err != nil {
			wantClientError(t, err)
			return
		}
		current := schema.Object{"userName": "ada", "emails": []any{schema.Object{"type": "work", "value": "a@b.c", "primary": true}}}
		before, _ := json.Marshal(current)
		after, _, err := patch.Apply(schema.UserType(), patch.Reader{}, current, operations, noMembers)
		wantClientError(t, err)
		if untouched, _ := json.Marshal(current); string(untouched) != string(before) {
			t.Error("the original was changed")
		}
		if err == nil {
			_, err := toResource(patch.Reader{}, schema.UserType(), after)
			wantClientError(t, err)
		}
	})
}

func noMembers([]uuid.UUID, filter.Condition) ([]uuid.UUID, error) { return nil, nil }

func FuzzCursor(f *testing.F) {
	keyset, err := seal.GenerateKeyset()
	if err != nil {
		f.Fatal(err)
	}
	sealer, err := seal.New(keyset)
	if err != nil {
		f.Fatal(err)
	}
	binding := cursorBinding{Tenant: uuid.New(), Type: "User"}
	key := "x"
	valid, err := sealCursor(sealer, binding, directory.Position{ID: uuid.New(), Key: &key})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{valid, valid[:len(valid)-1], "", "AAAA", strings.Repeat("A", 9000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		position, err := openCursor(sealer, binding, text)
		wantClientError(t, err)
		if err == nil && text != valid {
			t.Errorf("a forged cursor was accepted: %v", position)
		}
	})
}

func FuzzSearch(f *testing.F) {
	for _, seed := range []string{
		`{"filter":"userName eq \"x\"","sortBy":"name.familyName","sortOrder":"descending","count":5}`, `{"attributes":["emails.value"],"cursor":""}`,
		`{"excludedAttributes":["members"],"startIndex":-1}`, `{"sortBy":"emails[type eq \"work\"].value"}`,
	} {
		f.Add(seed)
	}
	types := schema.ResourceTypes(nil)
	f.Fuzz(func(t *testing.T, body string) {
		raw, err := schema.ParseObject([]byte(body))
		if err != nil {
			return
		}
		q, err := searchFromBody(raw)
		if err != nil {
			wantClientError(t, err)
			return
		}
		if q.start < 1 || q.count < 0 || q.count > maxCount {
			t.Errorf("count %d and startIndex %d are out of range", q.count, q.start)
		}
		_, err = q.query(types)
		wantClientError(t, err)
		_, err = newProjection(types[0], q.attributes, q.excluded)
		wantClientError(t, err)
	})
}

func FuzzBulk(f *testing.F) {
	for _, seed := range []string{
		`{"Operations":[{"method":"POST","path":"/Users","bulkId":"a","data":{"userName":"x"}},{"method":"PATCH","path":"/Groups/bulkId:b","data":{"x":"bulkId:a"}}]}`,
		`{"failOnErrors":1,"Operations":[{"method":"DELETE","path":"/Users/../Bulk"}]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		raw, err := schema.ParseObject([]byte(body))
		if err != nil {
			return
		}
		request, err := parseBulk(raw, schema.ResourceTypes(nil))
		if err != nil {
			wantClientError(t, err)
			return
		}
		if ordered := inOrder(request.operations); len(ordered) != len(request.operations) {
			t.Errorf("%d operations are ordered of %d", len(ordered), len(request.operations))
		}
	})
}
