package scim

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		`userName eq "x"`, `externalId eq jyoung`, `emails[type eq "work"].value eq "x"`, `not (active eq true) and (id pr or title sw "a")`,
		`urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager eq "1"`, `meta.lastModified gt "2026-01-01T00:00:00Z"`,
		strings.Repeat("(", 31) + "id pr" + strings.Repeat(")", 31), `x eq "\u00e9"`, `emails[type eq "a" or type eq "b"] pr`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, err := filter.Parse(schema.UserType(), text)
		wantClientError(t, err)
	})
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{"active", `emails[type eq "work"].value`, "name.givenName", schema.EnterpriseURN + ":manager", schema.EnterpriseURN, "members[", "id"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		_, err := patch.ParsePath(schema.UserType(), path)
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

func FuzzBody(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"a":2}`, strings.Repeat("[", 100), `{"userName":"x","active":"True"}`, "null"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		raw, err := schema.ParseObject([]byte(body))
		if err != nil {
			wantClientError(t, err)
			return
		}
		_, err = patch.Reader{}.Resource(schema.UserType(), raw)
		wantClientError(t, err)
	})
}

// FuzzJSON compares the parser with encoding/json, which accepts duplicate names and any
// depth.
func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-0.5e+3,true,false,null,"x\u00e9\n",{}],"b":{"c":""}}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":-}`, `{"a" 1}`, `{"a":1,}`, `{,}`, `[1,]`,
		`{"a":"\ud800"}`, "{\"a\":\"\xff\"}", "{\"a\":\"\t\"}", `{"a":"\x"}`, `{"a":nul}`, `{"a":1} `, `{"a":1}{`, `{"a":1,"a":2}`, `{"a":"`, `{"a":"\`, "{\"a\"\x00:1}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		read, err := schema.ParseObject([]byte(body))
		var refused *Error
		if errors.As(err, &refused) {
			tooMuch := strings.Contains(refused.Detail, "duplicate key") || strings.Contains(refused.Detail, "deeper") ||
				strings.Contains(refused.Detail, "must be a JSON object")
			if !tooMuch && json.Valid([]byte(body)) {
				t.Errorf("valid JSON was refused: %v", err)
			}
			return
		}
		d := json.NewDecoder(strings.NewReader(body))
		d.UseNumber()
		var want map[string]any
		if err := d.Decode(&want); err != nil {
			t.Fatalf("encoding/json rejects it: %v", err)
		}
		if diff := cmp.Diff(want, read); diff != "" {
			t.Errorf("the parser differs from encoding/json (-encoding/json +parser):\n%s", diff)
		}
		again, err := schema.ParseObject(schema.AppendValue(nil, read))
		if diff := cmp.Diff(read, again); err != nil || diff != "" {
			t.Errorf("encoded and parsed again: %v (-before +after):\n%s", err, diff)
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

func FuzzExtension(f *testing.F) {
	f.Add(`{"id":"urn:example:acme:2.0:Claims","name":"Claims","attributes":[{"name":"clearedForProdData","type":"boolean"}]}`)
	f.Add(`{"id":"urn:example:acme","attributes":[{"name":"a","type":"complex","subAttributes":[{"name":"b"}]}]}`)
	f.Fuzz(func(t *testing.T, definition string) {
		e, err := schema.ParseExtension("User", []byte(definition))
		if err != nil {
			return
		}
		rt := schema.ResourceTypes([]*schema.Extension{e})[0]
		if err := schema.CheckExtension(e, []*schema.Extension{e}); err != nil {
			t.Errorf("a schema cannot replace itself: %v", err)
		}
		if _, a := rt.Find(e.Schema.ID + ":" + e.Schema.Attributes[0].Name); a == nil {
			t.Error("an attribute is not found by its URN")
		}
	})
}
