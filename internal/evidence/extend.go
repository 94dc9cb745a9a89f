package evidence

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/seal"
)

const (
	// chainPoll is the interval at which new records are chained.
	chainPoll = 2 * time.Second
	// chainBatch is the maximum number of records that one transaction chains.
	chainBatch = 500
	// signedWithin and signedEvery bound how long records are not signed, and how many.
	signedWithin = time.Hour
	signedEvery  = 1000
)

// ErrAltered is returned if the stored chain is not what it was when it was last signed or extended. Nothing is signed
// from then on.
var ErrAltered = errors.New("the stored evidence was altered: export it and run `leaver evidence verify`, " +
	"and restore the database from a backup")

// Chain extends the hash chains with new records, and signs checkpoints.
type Chain struct {
	db     *database.DB
	sealer *seal.Sealer
}

// NewChain returns the chains on db. sealer seals the private keys of checkpoints.
func NewChain(db *database.DB, sealer *seal.Sealer) *Chain { return &Chain{db, sealer} }

// Run extends and signs all chains until ctx is done. Several processes may run it.
func (c *Chain) Run(ctx context.Context, log *slog.Logger) {
	for ctx.Err() == nil {
		if err := c.ExtendAll(ctx); err != nil && ctx.Err() == nil {
			log.Error("failed to chain evidence; retrying", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(chainPoll):
		}
	}
}

// ExtendAll extends and signs all chains that are due. A chain that fails does not delay the others.
func (c *Chain) ExtendAll(ctx context.Context) error {
	due, err := database.Rows(ctx, c.db, uuid.Nil, pgx.RowTo[uuid.UUID], `select evidence_due($1)`, signedWithin)
	if err != nil {
		return fmt.Errorf("list chains with new records: %w", err)
	}
	var failed error
	for _, tenant := range due {
		err := c.Extend(ctx, tenant)
		if err == nil {
			_, err = c.Sign(ctx, tenant, signedEvery, signedWithin)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("tenant %s: %w", tenant, err))
		}
	}
	return failed
}

// Extend appends all committed records of a tenant to its chain, or of the installation with [uuid.Nil].
func (c *Chain) Extend(ctx context.Context, tenant uuid.UUID) error {
	for {
		n, err := c.extend(ctx, tenant)
		if err != nil {
			return fmt.Errorf("extend the chain: %w", err)
		}
		if n < chainBatch {
			return nil
		}
	}
}

func (c *Chain) extend(ctx context.Context, tenant uuid.UUID) (n int, err error) {
	err = c.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		sequence, hash, err := lockHead(ctx, tx, tenant)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `
			with taken as (
			  delete from evidence_pending where tenant_id = $1 and id in (
			    select id from evidence_pending where tenant_id = $1 order by id limit $2) returning id, source, record)
			select source, record from taken order by id`, tenant, chainBatch)
		if err != nil {
			return err
		}
		taken, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Entry, err error) {
			return e, row.Scan(&e.Source, &e.Record)
		})
		if err != nil || len(taken) == 0 {
			return err
		}
		n = len(taken)
		var sources, records []string
		var hashes [][]byte
		for _, e := range taken {
			e.Tenant = tenant
			e.Sequence = sequence + int64(len(records)) + 1
			if e.Record, err = canonicalText(e.Record); err != nil {
				return err
			}
			if hash, err = e.After(hash); err != nil {
				return err
			}
			sources, records = append(sources, e.Source), append(records, string(e.Record))
			hashes = append(hashes, append([]byte(nil), hash[:]...))
		}
		_, err = tx.Exec(ctx, `
			with added as (
			  insert into evidence_chain (tenant_id, sequence, source, record, hash)
			  select $1, $2 + n, source, record, hash
			    from unnest($3::text[], $4::text[], $5::bytea[]) with ordinality as r (source, record, hash, n))
			update evidence_heads set sequence = $2 + $6, hash = $7 where tenant_id = $1`,
			tenant, sequence, sources, records, hashes, n, hash[:])
		return err
	})
	return n, err
}

// lockHead returns the end of a chain, and locks it until the end of the transaction. Error: [ErrAltered] if the chain
// does not end there.
func lockHead(ctx context.Context, tx pgx.Tx, tenant uuid.UUID) (sequence int64, hash Hash, err error) {
	_, err = tx.Exec(ctx, `
		insert into evidence_heads (tenant_id, hash, signed_hash) values ($1, $2, $2) on conflict do nothing`,
		tenant, hash[:])
	if err != nil {
		return 0, hash, err
	}
	var stored []byte
	var intact bool
	err = tx.QueryRow(ctx, `
		select h.sequence, h.hash, not exists (
		         select 1 from evidence_chain c where c.tenant_id = h.tenant_id and c.sequence > h.sequence)
		       and (h.sequence = 0 or exists (
		         select 1 from evidence_chain c
		          where c.tenant_id = h.tenant_id and c.sequence = h.sequence and c.hash = h.hash))
		  from evidence_heads h where h.tenant_id = $1 for update`, tenant).Scan(&sequence, &stored, &intact)
	if err != nil {
		return 0, hash, err
	}
	if !intact {
		return 0, hash, ErrAltered
	}
	return sequence, Hash(stored), nil
}

// Sign signs the end of a chain if it has at least every records that are not signed, or if its last checkpoint is
// older than within. It verifies these records first. It returns the checkpoint, or nil if none is due.
// Error: [ErrAltered].
func (c *Chain) Sign(ctx context.Context, tenant uuid.UUID, every int64, within time.Duration) (*Checkpoint, error) {
	var signed *Checkpoint
	id, private, err := c.key(ctx)
	if err != nil {
		return nil, err
	}
	err = c.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		sequence, hash, err := lockHead(ctx, tx, tenant)
		if err != nil {
			return err
		}
		var after int64
		var from []byte
		var due bool
		err = tx.QueryRow(ctx, `
			select signed_sequence, signed_hash,
			       sequence > signed_sequence and (sequence - signed_sequence >= $2 or signed_at < now() - $3::interval)
			  from evidence_heads where tenant_id = $1`, tenant, every, within).Scan(&after, &from, &due)
		if err != nil || !due {
			return err
		}
		if err := check(ctx, tx, tenant, after, Hash(from), hash); err != nil {
			return err
		}
		checkpoint, text, err := sign(Statement{
			Tenant: tenant, Sequence: sequence, Hash: hash, Key: id, At: time.Now().UTC().Truncate(time.Microsecond),
		}, private)
		if err != nil {
			return err
		}
		signed = &checkpoint
		_, err = tx.Exec(ctx, `
			with stored as (
			  insert into evidence_checkpoints (tenant_id, sequence, statement, signature) values ($1, $2, $3, $4))
			update evidence_heads set signed_sequence = $2, signed_hash = $5, signed_at = now() where tenant_id = $1`,
			tenant, sequence, string(text), checkpoint.Signature, hash[:])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sign the chain: %w", err)
	}
	return signed, nil
}

// RecordExport records that the context's actor exports a chain, or what it says about a principal, and returns the
// checkpoint of this record.
func (c *Chain) RecordExport(ctx context.Context, tenant uuid.UUID, principal *uuid.UUID) (*Checkpoint, error) {
	object := "chain"
	if principal != nil {
		object = principal.String()
	}
	err := c.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		return audit.Record(ctx, tx, tenant, audit.EvidenceExport, object, nil, nil)
	})
	if err == nil {
		err = c.Extend(ctx, tenant)
	}
	if err == nil {
		_, err = c.Sign(ctx, tenant, 1, 0)
	}
	if err != nil {
		return nil, err
	}
	// Another process may have signed the record.
	last, err := database.Row(ctx, c.db, tenant, scanCheckpoint, `
		select statement, signature from evidence_checkpoints where tenant_id = $1 order by sequence desc limit 1`, tenant)
	if err != nil {
		return nil, fmt.Errorf("read the last checkpoint: %w", err)
	}
	return &last, nil
}

func scanCheckpoint(row pgx.CollectableRow) (c Checkpoint, err error) {
	var statement string
	if err = row.Scan(&statement, &c.Signature); err != nil {
		return c, err
	}
	return c, json.Unmarshal([]byte(statement), &c.Statement)
}

// check verifies the stored entries after a number. Error: [ErrAltered].
func check(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, after int64, hash, end Hash) error {
	rows, err := tx.Query(ctx, `
		select sequence, source, record, hash from evidence_chain where tenant_id = $1 and sequence > $2 order by sequence`,
		tenant, after)
	if err != nil {
		return err
	}
	e := Entry{Tenant: tenant}
	var record string
	var stored []byte
	_, err = pgx.ForEachRow(rows, []any{&e.Sequence, &e.Source, &record, &stored}, func() error {
		e.Record, after = json.RawMessage(record), after+1
		if hash, err = e.After(hash); err != nil || hash != Hash(stored) || e.Sequence != after {
			return fmt.Errorf("%w (record %d)", ErrAltered, e.Sequence)
		}
		return nil
	})
	if err == nil && hash != end {
		return ErrAltered
	}
	return err
}

// key returns the newest key, and creates the first one.
func (c *Chain) key(ctx context.Context) (id uuid.UUID, private ed25519.PrivateKey, err error) {
	var sealed []byte
	err = database.Together(ctx, c.db, uuid.Nil, database.Statement{
		SQL:     `select id, private from evidence_keys order by created_at desc limit 1`,
		Collect: database.Fields(&id, &sealed),
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return c.makeKey(ctx)
	}
	if err != nil {
		return id, nil, fmt.Errorf("read the key of checkpoints: %w", err)
	}
	seed, err := c.sealer.Open(uuid.Nil, id, sealed)
	if err != nil {
		return id, nil, fmt.Errorf("open the key of checkpoints: %w", err)
	}
	if len(seed) != ed25519.SeedSize {
		return id, nil, fmt.Errorf("the key %s of checkpoints is not an Ed25519 key", id)
	}
	return id, ed25519.NewKeyFromSeed(seed), nil
}

// makeKey creates a key. Two processes may create one each at the same time; both are then valid.
func (c *Chain) makeKey(ctx context.Context) (id uuid.UUID, private ed25519.PrivateKey, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return id, nil, fmt.Errorf("generate the key of checkpoints: %w", err)
	}
	id = uuid.New()
	sealed, err := c.sealer.Seal(uuid.Nil, id, private.Seed())
	if err == nil {
		err = database.Exec(ctx, c.db, uuid.Nil, `insert into evidence_keys (id, private, public) values ($1, $2, $3)`,
			id, sealed, []byte(public))
	}
	if err != nil {
		return id, nil, fmt.Errorf("store the key of checkpoints: %w", err)
	}
	return id, private, nil
}

// Keys returns the public keys of checkpoints. It creates the first one.
func (c *Chain) Keys(ctx context.Context) (Keys, error) {
	if _, _, err := c.key(ctx); err != nil {
		return nil, err
	}
	keys := make(Keys)
	var id uuid.UUID
	var public []byte
	err := database.Together(ctx, c.db, uuid.Nil, database.Statement{
		SQL:     `select id, public from evidence_keys order by created_at`,
		Collect: database.Each([]any{&id, &public}, func() { keys[id] = append(ed25519.PublicKey(nil), public...) }),
	})
	if err != nil {
		return nil, fmt.Errorf("read the keys of checkpoints: %w", err)
	}
	return keys, nil
}

// Chained is an entry with its hash.
type Chained struct {
	Entry Entry `json:"entry"`
	Hash  Hash  `json:"hash"`
}

// Entries returns a page of a chain after the entry with the number after.
func (c *Chain) Entries(ctx context.Context, tenant uuid.UUID, after int64, limit int) ([]Chained, error) {
	entries, err := database.Rows(ctx, c.db, tenant, func(row pgx.CollectableRow) (x Chained, err error) {
		var record string
		var hash []byte
		err = row.Scan(&x.Entry.Sequence, &x.Entry.Source, &record, &hash)
		if err == nil {
			x.Entry.Tenant, x.Entry.Record, x.Hash = tenant, json.RawMessage(record), Hash(hash)
		}
		return x, err
	}, `
		select sequence, source, record, hash from evidence_chain
		 where tenant_id = $1 and sequence > $2 order by sequence limit $3`, tenant, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read the chain: %w", err)
	}
	return entries, nil
}

// Checkpoints returns a page of a chain's checkpoints after the entry with the number after.
func (c *Chain) Checkpoints(ctx context.Context, tenant uuid.UUID, after int64, limit int) ([]Checkpoint, error) {
	checkpoints, err := database.Rows(ctx, c.db, tenant, scanCheckpoint, `
		select statement, signature from evidence_checkpoints
		 where tenant_id = $1 and sequence > $2 order by sequence limit $3`, tenant, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read the checkpoints: %w", err)
	}
	return checkpoints, nil
}
