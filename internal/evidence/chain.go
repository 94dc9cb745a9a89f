package evidence

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
)

// Entry is a record in the hash chain of a tenant, or of the installation with [uuid.Nil].
type Entry struct {
	Sequence int64     `json:"sequence"` // from 1, without gaps
	Source   string    `json:"source"`   // the table of the record
	Tenant   uuid.UUID `json:"tenant"`
	// Record is the record without its texts.
	Record json.RawMessage `json:"record"`
	// Texts are the members of the record that people or downstreams have worded, see [textsOf]; none if it has none, or
	// if they were erased.
	Texts json.RawMessage `json:"texts,omitempty"`
	// Digest is SHA-256 over Salt and the texts in canonical JSON. It stands for the texts in the entry's hash, so that
	// erased texts leave the chain verifiable; Salt, which is erased with them, keeps them from being guessed.
	Digest *Hash  `json:"digest,omitempty"`
	Salt   []byte `json:"salt,omitempty"`
}

// saltSize is the length of salts, in bytes.
const saltSize = 16

// textsOf returns the members of records that can be erased, by the table of the record: what may name people.
func textsOf(source string) []string {
	switch source {
	case "evidence":
		return []string{"detail"}
	case "acts", "credential_states":
		return []string{"reason"}
	case "admin_acts":
		return []string{"before", "after"}
	}
	return nil
}

// newEntry returns an entry of a record, with the texts apart.
func newEntry(source string, record []byte) (e Entry, err error) {
	e.Source = source
	members := make(map[string]json.RawMessage)
	if err := json.Unmarshal(record, &members); err != nil {
		return e, fmt.Errorf("decode a record of %s: %w", source, err)
	}
	texts := make(map[string]json.RawMessage)
	for _, name := range textsOf(source) {
		if text := members[name]; len(text) > 0 && string(text) != `""` && string(text) != "null" {
			texts[name] = text
			delete(members, name)
		}
	}
	if e.Record, err = canonical(members); err != nil || len(texts) == 0 {
		return e, err
	}
	if e.Texts, err = canonical(texts); err != nil {
		return e, err
	}
	e.Salt = make([]byte, saltSize)
	_, _ = rand.Read(e.Salt) // never fails
	digest := e.digest()
	e.Digest = &digest
	return e, nil
}

func (e Entry) digest() Hash { return sha256.Sum256(append(slices.Clone(e.Salt), e.Texts...)) }

// Erased reports whether the texts of an entry were erased.
func (e Entry) Erased() bool { return e.Digest != nil && e.Texts == nil && e.Salt == nil }

// intact reports whether the texts of an entry are those of its digest, or were erased.
func (e Entry) intact() bool {
	if e.Digest == nil {
		return e.Texts == nil && e.Salt == nil
	}
	return e.Erased() || len(e.Salt) == saltSize && e.digest() == *e.Digest
}

// Whole returns the record with its texts.
func (e Entry) Whole() (json.RawMessage, error) {
	if e.Texts == nil {
		return e.Record, nil
	}
	members := make(map[string]json.RawMessage)
	for _, part := range []json.RawMessage{e.Record, e.Texts} {
		if err := json.Unmarshal(part, &members); err != nil {
			return nil, fmt.Errorf("decode record %d: %w", e.Sequence, err)
		}
	}
	return canonical(members)
}

// Hash is SHA-256 over the hash of the previous entry and an entry.
type Hash [sha256.Size]byte

// MarshalText implements encoding.TextMarshaler, in hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("a hash has %d hexadecimal digits, got %d", hex.EncodedLen(len(h)), len(text))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// After returns the hash of an entry that follows the entry with the hash previous. Before the first entry it is zero.
func (e Entry) After(previous Hash) (Hash, error) {
	e.Texts, e.Salt = nil, nil
	canonical, err := canonical(e)
	if err != nil {
		return Hash{}, err
	}
	return sha256.Sum256(append(previous[:], canonical...)), nil
}

// canonical returns a value as canonical JSON (RFC 8785).
func canonical(value any) ([]byte, error) {
	encoded, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return canonicalText(encoded)
}

func canonicalText(text []byte) ([]byte, error) {
	value := jsontext.Value(text).Clone()
	if err := value.Canonicalize(); err != nil {
		return nil, fmt.Errorf("put into canonical form: %w", err)
	}
	return value, nil
}

// Statement is what a checkpoint says: that the chain's entry with this number has this hash.
type Statement struct {
	Type     string    `json:"type"` // [statementType]
	Tenant   uuid.UUID `json:"tenant"`
	Sequence int64     `json:"sequence"`
	Hash     Hash      `json:"hash"`
	Key      uuid.UUID `json:"key"`
	At       time.Time `json:"at"`
}

const statementType = "leaver-evidence-checkpoint"

// Checkpoint is a signed statement. The signature is Ed25519 (RFC 8032) over the statement in canonical JSON.
type Checkpoint struct {
	Statement Statement `json:"statement"`
	Signature []byte    `json:"signature"`
}

// sign signs a statement.
func sign(s Statement, private ed25519.PrivateKey) (c Checkpoint, text []byte, err error) {
	s.Type = statementType
	if text, err = canonical(s); err != nil {
		return c, nil, err
	}
	return Checkpoint{s, ed25519.Sign(private, text)}, text, nil
}

// Keys are the public keys of checkpoints, by their ID.
type Keys map[uuid.UUID]ed25519.PublicKey

// verify returns an error unless one of the keys has signed the checkpoint.
func (k Keys) verify(c Checkpoint) error {
	key, known := k[c.Statement.Key]
	if !known {
		return fmt.Errorf("signed with the key %s, which is not in --keys", c.Statement.Key)
	}
	text, err := canonical(c.Statement)
	if err != nil {
		return err
	}
	if c.Statement.Type != statementType || !ed25519.Verify(key, text, c.Signature) {
		return fmt.Errorf("not signed with the key %s, which it names", c.Statement.Key)
	}
	return nil
}
