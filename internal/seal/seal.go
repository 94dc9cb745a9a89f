// Package seal encrypts data at rest: the secrets of credentials in PostgreSQL, and the payloads of
// Temporal histories.
package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Sealer seals with the primary key of a tink AEAD keyset, and opens with any of its keys.
type Sealer struct {
	aead     tink.AEAD
	primary  uint32
	keys     map[uint32]bool
	unopened atomic.Int64
}

// Unopened returns the number of payloads that no key of this process's key set could open.
func (s *Sealer) Unopened() int64 { return s.unopened.Load() }

// Primary returns the id of the key that seals.
func (s *Sealer) Primary() uint32 { return s.primary }

// tinkPrefix is the length of a ciphertext's prefix, in bytes: a version and the key's id
// (https://developers.google.com/tink/wire-format).
const tinkPrefix = 5

// knows reports whether the key that a ciphertext names is in the key set.
func (s *Sealer) knows(sealed []byte) bool {
	return len(sealed) > tinkPrefix && sealed[0] == 1 && s.keys[binary.BigEndian.Uint32(sealed[1:tinkPrefix])]
}

// New returns a sealer for a cleartext JSON keyset, as [GenerateKeyset] writes it.
func New(keysetJSON []byte) (*Sealer, error) {
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(keysetJSON)))
	if err != nil {
		// tink's error may quote the input, which is the key.
		return nil, fmt.Errorf("the seal keyset is not a tink AEAD keyset in JSON (make one with `leaver keyset`)")
	}
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("the seal keyset has no usable AEAD key: %w", err)
	}
	info := handle.KeysetInfo()
	s := &Sealer{aead: primitive, primary: info.GetPrimaryKeyId(), keys: make(map[uint32]bool)}
	for _, key := range info.GetKeyInfo() {
		s.keys[key.GetKeyId()] = key.GetStatus() == tinkpb.KeyStatusType_ENABLED
	}
	return s, nil
}

// Load returns a sealer for the keyset in a file, or in text as base64 of the file. Exactly one of them
// must be set.
func Load(file, text string) (*Sealer, error) {
	switch {
	case file != "" && text != "":
		return nil, fmt.Errorf("both seal.keyset_file and seal.keyset are set: remove one of them")
	case file != "":
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read the seal keyset: %w", err)
		}
		return New(raw)
	case text != "":
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("seal.keyset (LEAVER_SEAL_KEYSET) must be base64 of a keyset file")
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

// Seal encrypts a secret of a row. The associated data binds the ciphertext to its tenant and row, so
// that a copy in another row cannot be opened.
func (s *Sealer) Seal(tenant, row uuid.UUID, secret []byte) ([]byte, error) {
	sealed, err := s.aead.Encrypt(secret, rowContext(tenant, row))
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return sealed, nil
}

// Open decrypts a ciphertext of [Sealer.Seal] for the same tenant and row.
func (s *Sealer) Open(tenant, row uuid.UUID, sealed []byte) ([]byte, error) {
	if !s.knows(sealed) {
		return nil, fmt.Errorf("open the sealed secret of %s: %w", row, ErrUnknownKey)
	}
	secret, err := s.aead.Decrypt(sealed, rowContext(tenant, row))
	if err != nil {
		return nil, fmt.Errorf("open the sealed secret of %s: the keyset is a different one, or the row was modified", row)
	}
	return secret, nil
}

func rowContext(tenant, row uuid.UUID) []byte {
	return append(append([]byte("leaver/row/"), tenant[:]...), row[:]...)
}

// SealText encrypts data that clients send back, such as a cursor, as URL-safe text. It can be opened
// only for the same purpose.
func (s *Sealer) SealText(purpose string, plain []byte) (string, error) {
	sealed, err := s.aead.Encrypt(plain, []byte("leaver/text/"+purpose))
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// OpenText decrypts a text of [Sealer.SealText] for the same purpose.
func (s *Sealer) OpenText(purpose, text string) ([]byte, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("the sealed text is not base64")
	}
	if !s.knows(sealed) {
		return nil, ErrUnknownKey
	}
	plain, err := s.aead.Decrypt(sealed, []byte("leaver/text/"+purpose))
	if err != nil {
		return nil, errors.New("the sealed text is for another purpose or of another keyset, or was modified")
	}
	return plain, nil
}
