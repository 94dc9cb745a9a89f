package filter

import (
	"errors"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/scim/schema"
)

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		`userName eq "x"`, `externalId eq jyoung`, `emails[type eq "work"].value eq "x"`, `not (active eq true) and (id pr or title sw "a")`,
		`urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager eq "1"`, `meta.lastModified gt "2026-01-01T00:00:00Z"`,
		strings.Repeat("(", 31) + "id pr" + strings.Repeat(")", 31), `x eq "\u00e9"`, `emails[type eq "a" or type eq "b"] pr`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, err := Parse(schema.UserType(), text)
		var violation *schema.Error
		if err != nil && !errors.As(err, &violation) {
			t.Errorf("got %v, want a violation", err)
		}
	})
}
