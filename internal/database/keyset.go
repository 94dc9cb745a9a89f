package database

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/seal"
)

// canaryPurpose is the purpose for which the canaries of keys are sealed.
const canaryPurpose = "keyset-canary"

// CheckKeyset compares a process's key set with the keys that the processes of the
// installation seal with. Each such key has a canary in the database, which every process
// must be able to open. CheckKeyset adds the canary of its own key. Error: [seal.ErrUnknownKey].
func CheckKeyset(ctx context.Context, db *DB, sealer *seal.Sealer) error {
	own, err := sealer.SealText(canaryPurpose, []byte("leaver"))
	if err != nil {
		return err
	}
	var canaries []string
	err = db.InNoTenant(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `select sealed from keyset_canaries`)
		if err != nil {
			return err
		}
		if canaries, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return err
		}
		for _, canary := range canaries {
			if _, err := sealer.OpenText(canaryPurpose, canary); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `insert into keyset_canaries (key_id, sealed) values ($1, $2) on conflict do nothing`,
			int64(sealer.Primary()), own)
		return err
	})
	if err != nil {
		return fmt.Errorf("compare the key set with the installation's: %w", err)
	}
	return nil
}
