package scim

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
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
		after, _, err := patch(UserType(), reader{}, current, operations, noMembers)
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

func noMembers(directory.Condition) ([]uuid.UUID, error) { return nil, nil }
