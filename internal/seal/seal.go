// Package seal encrypts what must not be read at rest: credentials' secrets in
// PostgreSQL, and the payloads of Temporal histories.
package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Sealer seals with the primary key of a tink AEAD keyset, and opens with any of its keys.
type Sealer struct {
	aead tink.AEAD
}

// New reads a cleartext JSON keyset, as [GenerateKeyset] writes it.
func New(keysetJSON []byte) (*Sealer, error) {
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(keysetJSON)))
	if err != nil {
		// tink's error may quote the input, which is the key.
		return nil, fmt.Errorf("the seal keyset is not a tink AEAD keyset in JSON (make one with `leaver keyset`)")
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("the seal keyset holds no usable AEAD key: %w", err)
	}
	return &Sealer{aead: primitive}, nil
}

// Load reads the keyset from a file, or from text that is base64 of the same.
// Exactly one of the two is given.
func Load(file, text string) (*Sealer, error) {
	switch {
	case file != "" && text != "":
		return nil, fmt.Errorf("both a seal keyset file and a seal keyset are configured; give one")
	case file != "":
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the seal keyset: %w", err)
		}
		return New(raw)
	case text != "":
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("the seal keyset is not base64")
		}
		return New(raw)
	}
	return nil, fmt.Errorf("no seal keyset: set seal.keyset_file or LEAVER_SEAL_KEYSET (make one with `leaver keyset`)")
}

// GenerateKeyset returns a new keyset with one AES-256-GCM key, in cleartext JSON.
func GenerateKeyset() ([]byte, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("generate a keyset: %w", err)
	}
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&buf)); err != nil {
		return nil, fmt.Errorf("write the keyset: %w", err)
	}
	return buf.Bytes(), nil
}

// Seal encrypts a secret of one row: the associated data binds the ciphertext
// to its tenant and row, so that a copy elsewhere does not open.
func (s *Sealer) Seal(tenant, row uuid.UUID, secret []byte) ([]byte, error) {
	sealed, err := s.aead.Encrypt(secret, rowContext(tenant, row))
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return sealed, nil
}

// Open decrypts what Seal made for the same tenant and row.
func (s *Sealer) Open(tenant, row uuid.UUID, sealed []byte) ([]byte, error) {
	secret, err := s.aead.Decrypt(sealed, rowContext(tenant, row))
	if err != nil {
		return nil, fmt.Errorf("open the sealed secret of %s: the keyset is another, or the row was changed", row)
	}
	return secret, nil
}

func rowContext(tenant, row uuid.UUID) []byte {
	return append(append([]byte("leaver/row/"), tenant[:]...), row[:]...)
}

// SealText encrypts what leaves the process and comes back, such as a cursor,
// as URL-safe text. It opens for the same purpose only.
func (s *Sealer) SealText(purpose string, plain []byte) (string, error) {
	sealed, err := s.aead.Encrypt(plain, []byte("leaver/text/"+purpose))
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// OpenText decrypts what SealText made for the same purpose.
func (s *Sealer) OpenText(purpose, text string) ([]byte, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("the sealed text is not base64")
	}
	plain, err := s.aead.Decrypt(sealed, []byte("leaver/text/"+purpose))
	if err != nil {
		return nil, errors.New("the sealed text is of another purpose or keyset, or was changed")
	}
	return plain, nil
}
