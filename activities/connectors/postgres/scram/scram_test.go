package scram

import (
	"encoding/base64"
	"testing"
)

// The verifier is the one that PostgreSQL 15 computes for this password and salt.
func TestTheVerifierIsPostgreSQLs(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	got, err := verifier("pencil", salt)
	if err != nil {
		t.Fatal(err)
	}
	// StoredKey and ServerKey of RFC 7677 section 3's example, at 4096 iterations.
	const want = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestAPasswordThatWouldNeedSASLprepIsRefused(t *testing.T) {
	for _, password := range []string{"pässword", "a\nb", "\x00"} {
		if _, err := NewVerifier(password); err == nil {
			t.Errorf("%q was accepted", password)
		}
	}
}
