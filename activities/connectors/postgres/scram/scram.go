// Package scram computes the SCRAM-SHA-256 verifiers that PostgreSQL stores.
package scram

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
)

const (
	// iterations is PostgreSQL's default (scram_iterations).
	iterations = 4096
	saltBytes  = 16
)

// NewVerifier returns the verifier of password in the form that PostgreSQL
// accepts in place of a password (pg_authid.rolpassword), so that the password
// itself never appears in a statement or in the server's log. Passwords must be
// printable ASCII: others would need SASLprep (RFC 4013), which is not done here.
func NewVerifier(password string) (string, error) {
	for i := range len(password) {
		if password[i] < 0x20 || password[i] > 0x7e {
			return "", errors.New("scram: the password must consist of printable ASCII characters")
		}
	}
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails, see crypto/rand
	return verifier(password, salt)
}

// verifier computes StoredKey and ServerKey of RFC 5802 section 3.
func verifier(password string, salt []byte) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("scram: %w", err)
	}
	storedKey := sha256.Sum256(sum(salted, "Client Key"))
	encode := base64.StdEncoding.EncodeToString
	serverKey := sum(salted, "Server Key")
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, encode(salt), encode(storedKey[:]), encode(serverKey)), nil
}

func sum(key []byte, message string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(message))
	return mac.Sum(nil)
}
