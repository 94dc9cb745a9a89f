package scim

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/seal"
)

const (
	// cursorTimeout is how long a cursor leads on. It holds no state here: the
	// limit keeps a leaked one from being of use for ever.
	cursorTimeout = time.Hour
	// maxCursor bounds a cursor that comes in, in bytes.
	maxCursor = 8 << 10
)

// cursorBinding is what a cursor is of: for another tenant, endpoint or query it
// means nothing.
type cursorBinding struct {
	Tenant     uuid.UUID
	Type       string // empty at the root
	Filter     string
	SortBy     string
	Descending bool
}

func (b cursorBinding) purpose() string {
	return fmt.Sprintf("scim/cursor/%x", sha256.Sum256(fmt.Appendf(nil, "%s %q %q %q %t", b.Tenant, b.Type, b.Filter, b.SortBy, b.Descending)))
}

// cursor is a keyset position (RFC 9865), sealed: nobody can make one, and what
// it says of a resource is in no log.
type cursor struct {
	directory.Position
	Issued int64 `json:"t"` // Unix time
}

func sealCursor(sealer *seal.Sealer, b cursorBinding, at directory.Position) (string, error) {
	plain, err := json.Marshal(cursor{at, time.Now().Unix()})
	if err != nil {
		return "", fmt.Errorf("encode a cursor: %w", err)
	}
	return sealer.SealText(b.purpose(), plain)
}

func openCursor(sealer *seal.Sealer, b cursorBinding, text string) (*directory.Position, error) {
	invalid := badRequest(invalidCursor, "the cursor is not of this query: begin again with an empty one")
	if len(text) > maxCursor {
		return nil, invalid
	}
	plain, err := sealer.OpenText(b.purpose(), text)
	if err != nil {
		return nil, invalid
	}
	var c cursor
	if err := json.Unmarshal(plain, &c); err != nil {
		return nil, invalid
	}
	if time.Since(time.Unix(c.Issued, 0)) > cursorTimeout {
		return nil, badRequest(expiredCursor, "the cursor is older than %s: begin again with an empty one", cursorTimeout)
	}
	return &c.Position, nil
}
