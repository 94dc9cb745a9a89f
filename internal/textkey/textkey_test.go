package textkey_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/leaverhq/leaver/internal/textkey"
)

func TestFold_EqualStringsHaveOneKey(t *testing.T) {
	for name, c := range map[string][2]string{
		"case":                        {"Ada@Example.com", "aDA@eXAMPLE.COM"},
		"composed and decomposed":     {"jos\u00e9", "jose\u0301"},
		"case of a decomposed letter": {"JOSE\u0301", "jos\u00e9"},
		"full width":                  {"\uff21\uff44\uff41", "ada"},
		"sigma at the end":            {"ΟΔΟΣ", "οδοσ"},
		"a private-use code point":    {"\ue000JOSE\u0301", "\ue000jos\u00e9"},
	} {
		t.Run(name, func(t *testing.T) {
			if a, b := textkey.Fold(c[0]), textkey.Fold(c[1]); a != b {
				t.Errorf("Fold(%q) = %q and Fold(%q) = %q, want equal keys", c[0], a, c[1], b)
			}
		})
	}
}

func TestFold_DifferentStringsHaveTwoKeys(t *testing.T) {
	for _, c := range [][2]string{{"jose", "josé"}, {"a b", "ab"}, {"i", "ı"}, {" x", "x"}} {
		if a := textkey.Fold(c[0]); a == textkey.Fold(c[1]) {
			t.Errorf("%q and %q have the same key %q", c[0], c[1], a)
		}
	}
}

func TestExact_KeepsCase(t *testing.T) {
	if a, b := textkey.Exact("Jos\u00e9"), textkey.Exact("Jose\u0301"); a != b || a == textkey.Exact("jos\u00e9") {
		t.Errorf("the keys are %q and %q, want equal keys that keep case", a, b)
	}
}

// TestFold_IsIdempotent: otherwise a migration would change stored keys again.
func TestFold_IsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		once := textkey.Fold(s)
		if twice := textkey.Fold(once); twice != once {
			t.Fatalf("Fold(%q) = %q, but Fold of that is %q", s, once, twice)
		}
	})
}
