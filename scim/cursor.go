package scim

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/scim/schema"
)

const (
	// cursorTimeout is the lifetime of a cursor. The server keeps no state of cursors; the
	// timeout only limits the use of a leaked one.
	cursorTimeout = time.Hour
	// maxCursor bounds a received cursor, in bytes.
	maxCursor = 8 << 10
)

// cursorBinding identifies the tenant, endpoint and query for which a cursor is valid.
type cursorBinding struct {
	Tenant     uuid.UUID
	Type       string // empty at the root
	Filter     string
	SortBy     string
	Descending bool
}

func (b cursorBinding) purpose() string {
	query := fmt.Appendf(nil, "%s %q %q %q %t", b.Tenant, b.Type, b.Filter, b.SortBy, b.Descending)
	return fmt.Sprintf("scim/cursor/%x", sha256.Sum256(query))
}

// cursor is a keyset position (RFC 9865). It is sealed: clients cannot forge one, and logs
// do not show the values in it.
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
	invalid := badRequest(schema.InvalidCursor, "invalid cursor for this query: start again with an empty cursor")
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
		return nil, badRequest(schema.ExpiredCursor,
			"the cursor is older than %s: start again with an empty cursor", cursorTimeout)
	}
	return &c.Position, nil
}
