package evidence

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/fault"
	"github.com/leaverhq/leaver/internal/seal"
)

const (
	// chainPoll is the interval at which new records are chained.
	chainPoll = 2 * time.Second
	// chainBatch is the maximum number of records that one transaction chains, and maxBatches how many follow each other
	// before the other chains have their turn.
	chainBatch = 500
	maxBatches = 10
	// maxUnsignedAge is the age of the last checkpoint, and maxUnsigned the number of records after it, at which a chain
	// is signed again.
	maxUnsignedAge = time.Hour
	maxUnsigned    = 1000
	// alteredPoll is the interval in place of chainPoll while a chain is altered.
	alteredPoll = time.Minute
)

// ErrAltered is returned if the stored chain is not what it was when it was last signed or extended. Nothing is signed
// from then on.
var ErrAltered = fault.New(fault.Conflict, "the stored evidence was altered: run `leaver evidence export --unsigned` "+
	"and `leaver evidence verify` to see where, and restore the database from a backup")

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
		wait := chainPoll
		err := c.ExtendAll(ctx)
		if err != nil && ctx.Err() == nil {
			log.Error("failed to chain evidence; retrying", "error", err)
		}
		if errors.Is(err, ErrAltered) {
			wait = alteredPoll
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// ExtendAll extends and signs all chains that are due. A chain that fails does not delay the others.
func (c *Chain) ExtendAll(ctx context.Context) error {
	due, err := database.Rows(ctx, c.db, uuid.Nil, pgx.RowTo[uuid.UUID], `select evidence_due($1)`, maxUnsignedAge)
	if err != nil {
		return fmt.Errorf("list chains with new records: %w", err)
	}
	var failed error
	for _, tenant := range due {
		if err := c.extendUpTo(ctx, tenant, maxBatches); err != nil {
			failed = errors.Join(failed, fmt.Errorf("tenant %s: %w", tenant, err))
		}
	}
	return failed
}

// Extend appends all committed records of a tenant to its chain, or of the installation with [uuid.Nil], and signs the
// chain where that is due. Error: [ErrAltered].
func (c *Chain) Extend(ctx context.Context, tenant uuid.UUID) error {
	return c.extendUpTo(ctx, tenant, math.MaxInt)
}

// extendUpTo is [Chain.Extend] for a number of batches.
func (c *Chain) extendUpTo(ctx context.Context, tenant uuid.UUID, batches int) error {
	for range batches {
		n, err := c.extend(ctx, tenant)
		if err != nil {
			return fmt.Errorf("extend the chain: %w", err)
		}
		if _, err := c.Sign(ctx, tenant, maxUnsigned, maxUnsignedAge); err != nil {
			return err
		}
		if n < chainBatch {
			return nil
		}
	}
	return nil
}

func (c *Chain) extend(ctx context.Context, tenant uuid.UUID) (n int, err error) {
	err = c.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		h, err := c.lockHead(ctx, tx, tenant)
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
			var source string
			var record []byte
			if err := row.Scan(&source, &record); err != nil {
				return e, err
			}
			return newEntry(source, record)
		})
		if err != nil || len(taken) == 0 {
			return err
		}
		n = len(taken)
		var sources, records []string
		var texts []*string
		var hashes, salts, digests [][]byte
		first := h.Sequence
		for _, e := range taken {
			h.Sequence++
			e.Tenant, e.Sequence = tenant, h.Sequence
			if err := c.checkErasure(e); err != nil {
				return err
			}
			if h.Hash, err = e.After(h.Hash); err != nil {
				return err
			}
			var text *string
			var digest []byte
			if e.Digest != nil {
				text, digest = new(string), e.Digest[:]
				*text = string(e.Texts)
			}
			sources, records, texts = append(sources, e.Source), append(records, string(e.Record)), append(texts, text)
			hashes, digests = append(hashes, slices.Clone(h.Hash[:])), append(digests, digest)
			salts = append(salts, e.Salt)
		}
		_, err = tx.Exec(ctx, `
			insert into evidence_chain (tenant_id, sequence, source, record, texts, salt, digest, hash, event_id, item_id)
			select $1, $2 + n, source, r.record, texts, salt, digest, hash, (j.record ->> 'event_id')::uuid,
			       case when source <> 'admin_acts' then (j.record ->> 'item_id')::uuid
			            when j.record ->> 'object' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
			            then (j.record ->> 'object')::uuid end
			  from unnest($3::text[], $4::text[], $5::text[], $6::bytea[], $7::bytea[], $8::bytea[])
			       with ordinality as r (source, record, texts, salt, digest, hash, n),
			       lateral (select r.record::jsonb) j (record)`,
			tenant, first, sources, records, texts, salts, digests, hashes)
		if err != nil {
			return err
		}
		return c.storeHead(ctx, tx, tenant, h)
	})
	return n, err
}

// head is the end of a chain, and its last checkpoint. It is stored sealed: leaver continues only a chain whose end was
// written by a process with the key set.
type head struct {
	Sequence       int64 `json:"sequence"`
	Hash           Hash  `json:"hash"`
	SignedSequence int64 `json:"signedSequence"`
	SignedHash     Hash  `json:"signedHash"`
}

// headPurpose binds a sealed head to its chain.
func headPurpose(tenant uuid.UUID) string { return "evidence-head/" + tenant.String() }

// lockHead returns the end of a chain, and locks it until the end of the transaction. Error: [ErrAltered] if it was not
// sealed with the key set, or the chain does not end there.
func (c *Chain) lockHead(ctx context.Context, tx pgx.Tx, tenant uuid.UUID) (h head, err error) {
	_, err = tx.Exec(ctx, `insert into evidence_heads (tenant_id) values ($1) on conflict do nothing`, tenant)
	if err != nil {
		return h, err
	}
	var sealed string
	err = tx.QueryRow(ctx, `select sealed from evidence_heads where tenant_id = $1 for update`, tenant).Scan(&sealed)
	if err != nil {
		return h, err
	}
	if sealed != "" {
		opened, err := c.sealer.OpenText(headPurpose(tenant), sealed)
		switch {
		case errors.Is(err, seal.ErrUnknownKey):
			return h, err
		case err != nil:
			return h, fmt.Errorf("%w (its end was not sealed by leaver)", ErrAltered)
		}
		if err := json.Unmarshal(opened, &h); err != nil {
			return h, fmt.Errorf("decode the end of the chain: %w", err)
		}
	}
	// A statement of its own: one that waits for the lock does not see what was committed meanwhile.
	var intact bool
	err = tx.QueryRow(ctx, `
		select not exists (select 1 from evidence_chain where tenant_id = $1 and sequence > $2)
		       and ($2 = 0 or exists (
		         select 1 from evidence_chain where tenant_id = $1 and sequence = $2 and hash = $3))`,
		tenant, h.Sequence, h.Hash[:]).Scan(&intact)
	if err == nil && !intact {
		err = fmt.Errorf("%w (it does not end with record %d)", ErrAltered, h.Sequence)
	}
	return h, err
}

// storeHead stores the end of a chain.
func (c *Chain) storeHead(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, h head) error {
	encoded, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode the end of the chain: %w", err)
	}
	sealed, err := c.sealer.SealText(headPurpose(tenant), encoded)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		update evidence_heads set sequence = $2, signed_sequence = $3, sealed = $4,
		       signed_at = case when signed_sequence = $3 then signed_at else now() end
		 where tenant_id = $1`, tenant, h.Sequence, h.SignedSequence, sealed)
	return err
}

// Sign signs the end of a chain if at least unsigned records follow its last checkpoint, or if this checkpoint is older
// than age. It verifies the checkpoint and these records first. It returns the new checkpoint, or nil if none is due.
// Error: [ErrAltered].
func (c *Chain) Sign(ctx context.Context, tenant uuid.UUID, unsigned int64, age time.Duration) (*Checkpoint, error) {
	var signed *Checkpoint
	err := c.db.InTenant(ctx, tenant, func(tx pgx.Tx) error {
		h, err := c.lockHead(ctx, tx, tenant)
		if err != nil {
			return err
		}
		due, err := isDue(ctx, tx, tenant, h, unsigned, age)
		if err != nil || !due {
			return err
		}
		keys, err := c.signers(ctx, tx)
		if err != nil {
			return err
		}
		last := Statement{Tenant: tenant, Sequence: h.SignedSequence, Hash: h.SignedHash}
		if err := verifyCheckpoint(ctx, tx, keys, last); err != nil {
			return err
		}
		if err := verifyStored(ctx, tx, tenant, h); err != nil {
			return err
		}
		checkpoint, text, err := sign(Statement{
			Tenant: tenant, Sequence: h.Sequence, Hash: h.Hash, Key: keys[0].id,
			At: time.Now().UTC().Truncate(time.Microsecond),
		}, keys[0].private)
		if err != nil {
			return err
		}
		signed = &checkpoint
		_, err = tx.Exec(ctx, `
			insert into evidence_checkpoints (tenant_id, sequence, statement, signature) values ($1, $2, $3, $4)`,
			tenant, h.Sequence, string(text), checkpoint.Signature)
		if err != nil {
			return err
		}
		h.SignedSequence, h.SignedHash = h.Sequence, h.Hash
		return c.storeHead(ctx, tx, tenant, h)
	})
	if err != nil {
		return nil, fmt.Errorf("sign the chain: %w", err)
	}
	return signed, nil
}

// isDue reports whether the end of a chain is to be signed.
func isDue(
	ctx context.Context, tx pgx.Tx, tenant uuid.UUID, h head, unsigned int64, age time.Duration,
) (due bool, err error) {
	if n := h.Sequence - h.SignedSequence; n == 0 || n >= unsigned {
		return n > 0, nil
	}
	err = tx.QueryRow(ctx, `select signed_at < now() - $2::interval from evidence_heads where tenant_id = $1`,
		tenant, age).Scan(&due)
	return due, err
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

// verifyCheckpoint checks that the last stored checkpoint is what the head says was signed last, and that one of the
// keys has signed it. Error: [ErrAltered].
func verifyCheckpoint(ctx context.Context, tx pgx.Tx, keys []signingKey, signed Statement) error {
	rows, err := tx.Query(ctx, `
		select statement, signature from evidence_checkpoints where tenant_id = $1 order by sequence desc limit 1`,
		signed.Tenant)
	if err != nil {
		return err
	}
	last, err := pgx.CollectOneRow(rows, scanCheckpoint)
	switch {
	case errors.Is(err, pgx.ErrNoRows) && signed.Sequence == 0:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return fmt.Errorf("%w (the checkpoint of record %d is missing)", ErrAltered, signed.Sequence)
	case err != nil:
		return err
	}
	got := last.Statement
	if publicKeys(keys).verify(last) != nil || got.Tenant != signed.Tenant || got.Sequence != signed.Sequence ||
		got.Hash != signed.Hash {
		return fmt.Errorf("%w (the checkpoint of record %d)", ErrAltered, got.Sequence)
	}
	return nil
}

// verifyStored verifies the stored entries after the last checkpoint. Error: [ErrAltered].
func verifyStored(ctx context.Context, tx pgx.Tx, tenant uuid.UUID, h head) error {
	rows, err := tx.Query(ctx, `
		select sequence, source, record, texts, salt, digest, hash from evidence_chain
		 where tenant_id = $1 and sequence > $2 order by sequence`, tenant, h.SignedSequence)
	if err != nil {
		return err
	}
	stored, err := pgx.CollectRows(rows, scanChained(tenant))
	if err != nil {
		return err
	}
	hash, after := h.SignedHash, h.SignedSequence
	for _, c := range stored {
		after++
		hash, err = c.Entry.After(hash)
		if err != nil || hash != c.Hash || c.Entry.Sequence != after || !c.Entry.intact() {
			return fmt.Errorf("%w (record %d)", ErrAltered, c.Entry.Sequence)
		}
	}
	if hash != h.Hash {
		return fmt.Errorf("%w (record %d)", ErrAltered, after)
	}
	return nil
}

// signingKey is a key that signs checkpoints.
type signingKey struct {
	id      uuid.UUID
	private ed25519.PrivateKey
}

// keyPurpose binds a sealed key to its use and its ID.
func keyPurpose(id uuid.UUID) string { return "evidence-key/" + id.String() }

// publicKeys returns the public parts of keys.
func publicKeys(keys []signingKey) Keys {
	public := make(Keys, len(keys))
	for _, k := range keys {
		public[k.id] = k.private.Public().(ed25519.PublicKey) //nolint:forcetypeassert // see ed25519.PrivateKey.Public
	}
	return public
}

// signers returns the keys, newest first, and creates the first one. A key counts only if the key set can open it, so
// that only a process with the key set can add one.
func (c *Chain) signers(ctx context.Context, tx pgx.Tx) ([]signingKey, error) {
	rows, err := tx.Query(ctx, `select id, private from evidence_keys order by created_at desc, id`)
	if err != nil {
		return nil, err
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k signingKey, err error) {
		var sealed string
		if err = row.Scan(&k.id, &sealed); err != nil {
			return k, err
		}
		seed, err := c.sealer.OpenText(keyPurpose(k.id), sealed)
		if err != nil {
			return k, err
		}
		if len(seed) != ed25519.SeedSize {
			return k, fmt.Errorf("the key %s is not an Ed25519 key", k.id)
		}
		k.private = ed25519.NewKeyFromSeed(seed)
		return k, nil
	})
	if err == nil && len(keys) == 0 {
		var made signingKey
		made, err = c.makeKey(ctx, tx)
		keys = []signingKey{made}
	}
	if err != nil {
		return nil, fmt.Errorf("open the keys of checkpoints: %w", err)
	}
	return keys, nil
}

// makeKey creates a key. Two processes may create one each at the same time; both are then valid.
func (c *Chain) makeKey(ctx context.Context, tx pgx.Tx) (k signingKey, err error) {
	if _, k.private, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return k, err
	}
	k.id = uuid.New()
	sealed, err := c.sealer.SealText(keyPurpose(k.id), k.private.Seed())
	if err == nil {
		_, err = tx.Exec(ctx, `insert into evidence_keys (id, private) values ($1, $2)`, k.id, sealed)
	}
	return k, err
}

// PublicKey is a public key of checkpoints.
type PublicKey struct {
	ID  uuid.UUID         `json:"id"`
	Key ed25519.PublicKey `json:"publicKey"` // Ed25519
}

// NewKeys returns keys to verify with.
func NewKeys(public ...PublicKey) Keys {
	keys := make(Keys, len(public))
	for _, k := range public {
		keys[k.ID] = k.Key
	}
	return keys
}

// PublicKeys returns the public keys of checkpoints, newest first. It creates the first one.
func (c *Chain) PublicKeys(ctx context.Context) ([]PublicKey, error) {
	var keys []signingKey
	err := c.db.InNoTenant(ctx, func(tx pgx.Tx) (err error) {
		keys, err = c.signers(ctx, tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	public := publicKeys(keys)
	list := make([]PublicKey, len(keys))
	for i, k := range keys {
		list[i] = PublicKey{k.id, public[k.id]}
	}
	return list, nil
}

// Chained is an entry with its hash.
type Chained struct {
	Entry Entry `json:"entry"`
	Hash  Hash  `json:"hash"`
}

// scanChained returns what scans the entries of a tenant's chain.
func scanChained(tenant uuid.UUID) pgx.RowToFunc[Chained] {
	return func(row pgx.CollectableRow) (x Chained, err error) {
		x.Entry.Tenant = tenant
		var record string
		var texts *string
		var digest, hash []byte
		err = row.Scan(&x.Entry.Sequence, &x.Entry.Source, &record, &texts, &x.Entry.Salt, &digest, &hash)
		if err != nil {
			return x, err
		}
		x.Entry.Record = json.RawMessage(record)
		if texts != nil {
			x.Entry.Texts = json.RawMessage(*texts)
		}
		if digest != nil {
			x.Entry.Digest = new(Hash)
			*x.Entry.Digest = Hash(digest)
		}
		x.Hash = Hash(hash)
		return x, nil
	}
}

// Entries returns a page of a chain after the entry with the number after.
func (c *Chain) Entries(ctx context.Context, tenant uuid.UUID, after int64, limit int) ([]Chained, error) {
	entries, err := database.Rows(ctx, c.db, tenant, scanChained(tenant), `
		select sequence, source, record, texts, salt, digest, hash from evidence_chain
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
