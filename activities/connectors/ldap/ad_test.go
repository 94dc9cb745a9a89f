package ldap

import "testing"

// TestUnicodePassword_IsQuotedUTF16 checks the form that [MS-ADTS] section 3.1.1.3.1.5 asks for.
func TestUnicodePassword_IsQuotedUTF16(t *testing.T) {
	if got, want := unicodePassword("newé"), "\"\x00n\x00e\x00w\x00\xe9\x00\"\x00"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
