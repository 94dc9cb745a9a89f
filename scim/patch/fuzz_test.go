package patch

import (
	"errors"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/scim/schema"
)

// wantViolation fails unless err is nil or a violation: any invalid input is the client's error.
func wantViolation(t *testing.T, err error) {
	t.Helper()
	var violation *schema.Error
	if err != nil && !errors.As(err, &violation) {
		t.Errorf("got %v, want a violation", err)
	}
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{"active", `emails[type eq "work"].value`, "name.givenName", schema.EnterpriseURN + ":manager", schema.EnterpriseURN, "members[", "id"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		_, err := parsePath(schema.UserType(), path)
		wantViolation(t, err)
	})
}

func FuzzBody(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"a":2}`, strings.Repeat("[", 100), `{"userName":"x","active":"True"}`, "null"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		raw, err := schema.ParseObject([]byte(body))
		if err != nil {
			wantViolation(t, err)
			return
		}
		_, err = Reader{}.Resource(schema.UserType(), raw)
		wantViolation(t, err)
	})
}
