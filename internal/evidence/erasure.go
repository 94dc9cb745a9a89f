package evidence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/seal"
)

// ErasureSource is the source of records about erased texts.
const ErasureSource = "erasures"

// Erasure is a record of what was erased, and why.
type Erasure struct {
	ID        uuid.UUID  `json:"id"`
	Principal *uuid.UUID `json:"principal_id"` // nil: by the tenant's retention
	Actor     string     `json:"actor"`
	Reason    string     `json:"reason"`
	Records   [][2]int64 `json:"records"` // ranges of entries, with both ends
	// Seal is the other members, sealed with the key set: only leaver can erase.
	Seal string `json:"seal,omitempty"`
}

// erasurePurpose binds a seal to its erasure.
func erasurePurpose(tenant, id uuid.UUID) string {
	return "evidence-erasure/" + tenant.String() + "/" + id.String()
}

// RecordErasure stores an erasure, in its transaction. It sets its ID and its seal.
func (c *Chain) RecordErasure(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, e Erasure) error {
	e.ID, e.Seal = uuid.Must(uuid.NewV7()), "" // crypto/rand never fails
	said, err := canonical(e)
	if err != nil {
		return err
	}
	if e.Seal, err = c.sealer.SealText(erasurePurpose(tenant, e.ID), said); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		insert into erasures (tenant_id, id, principal_id, actor, reason, records, seal) values ($1, $2, $3, $4, $5, $6, $7)`,
		tenant, e.ID, e.Principal, e.Actor, e.Reason, e.Records, e.Seal)
	return err
}

// checkErasure returns [ErrAltered] for a record of an erasure that leaver did not make.
func (c *Chain) checkErasure(entry Entry) error {
	if entry.Source != ErasureSource {
		return nil
	}
	var e Erasure
	if err := json.Unmarshal(entry.Record, &e); err != nil {
		return fmt.Errorf("%w (a record of an erasure)", ErrAltered)
	}
	opened, err := c.sealer.OpenText(erasurePurpose(entry.Tenant, e.ID), e.Seal)
	if errors.Is(err, seal.ErrUnknownKey) {
		return err
	}
	e.Seal = ""
	said, encodeErr := canonical(e)
	if err != nil || encodeErr != nil || string(opened) != string(said) {
		return fmt.Errorf("%w (the erasure %s was not made by leaver)", ErrAltered, e.ID)
	}
	return nil
}
