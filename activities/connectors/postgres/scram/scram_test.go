package scram

import (
	"encoding/base64"
	"testing"
)

// TestVerifier_MatchesPostgreSQL compares with the verifier of PostgreSQL 15 for this password and salt.
func TestVerifier_MatchesPostgreSQL(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	got, err := verifier("pencil", salt)
	if err != nil {
		t.Fatal(err)
	}
	// StoredKey and ServerKey of RFC 7677 section 3's example, at 4096 iterations.
	const want = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==" +
		"$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestNewVerifier_RejectsPasswordsThatNeedSASLprep(t *testing.T) {
	for _, password := range []string{"pässword", "a\nb", "\x00"} {
		if _, err := NewVerifier(password); err == nil {
			t.Errorf("%q was accepted", password)
		}
	}
}
