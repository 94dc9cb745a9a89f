package ssf

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
)

const (
	// keyLife is how long a key signs. The public key is served for another two times [Retention],
	// the longest time for which a token that it signed may be stored.
	keyLife = 30 * 24 * time.Hour
	// keyLead is how long a key is served before it signs, because receivers cache the key set.
	keyLead = time.Hour
	keyBits = 2048 // minimum of the CAEP interoperability profile
	// jwksLife is how long a process caches the served keys.
	jwksLife = 5 * time.Second
	// keyReloadInterval is the interval at which a process reloads the signing key.
	keyReloadInterval = time.Minute
)

// JWKS returns the public keys (RFC 7517).
func (s *Store) JWKS(ctx context.Context) ([]byte, error) {
	return s.public.Get(ctx, struct{}{}, s.publicKeys)
}

func (s *Store) publicKeys(ctx context.Context) ([]byte, error) {
	keys := []json.RawMessage{}
	err := s.db.InNoTenant(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `
			select public from signing_keys where created_at > now() - $1::interval
			 order by created_at desc`, keyLife+2*Retention)
		if err != nil {
			return err
		}
		keys, err = pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the signing keys: %w", err)
	}
	public, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		return nil, fmt.Errorf("encode the signing keys: %w", err)
	}
	return public, nil
}

// signer returns the current signer: the newest key that has been served for keyLead, or the newest
// key if there is none. It creates the next key early enough.
func (s *Store) signer(ctx context.Context) (jose.Signer, error) {
	return s.signers.Get(ctx, struct{}{}, s.newSigner)
}

func (s *Store) newSigner(ctx context.Context) (jose.Signer, error) {
	id, private, created, err := s.signing(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		id, private, created, err = s.makeKey(ctx)
	}
	if err == nil && time.Since(created) > keyLife-2*keyLead {
		err = s.makeNext(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("get the signing key: %w", err)
	}
	options := (&jose.SignerOptions{}).WithType("secevent+jwt").WithHeader("kid", id.String())
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: private}, options)
	if err != nil {
		return nil, fmt.Errorf("create a signer: %w", err)
	}
	return signer, nil
}

// makeNext creates the next key unless another process has created it.
func (s *Store) makeNext(ctx context.Context) error {
	there, err := database.Row(ctx, s.db, uuid.Nil, pgx.RowTo[bool], `
		select exists (select 1 from signing_keys where created_at > now() - $1::interval)`, keyLife-2*keyLead)
	if err == nil && !there {
		_, _, _, err = s.makeKey(ctx)
	}
	return err
}

func (s *Store) signing(ctx context.Context) (id uuid.UUID, private *rsa.PrivateKey, created time.Time, err error) {
	var sealed []byte
	err = database.Together(ctx, s.db, uuid.Nil, database.Statement{
		SQL: `
		select id, private, created_at from signing_keys where created_at > now() - $1::interval
		 order by created_at > now() - $2::interval, created_at desc limit 1`,
		Args: []any{keyLife, keyLead}, Collect: database.Fields(&id, &sealed, &created),
	})
	if err != nil {
		return id, nil, created, err
	}
	raw, err := s.sealer.Open(uuid.Nil, id, sealed)
	if err != nil {
		return id, nil, created, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		return id, nil, created, err
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return id, nil, created, fmt.Errorf("signing key %s is not an RSA key", id)
	}
	return id, private, created, nil
}

// makeKey creates a key. Two processes may create one each at the same time; both are then served.
func (s *Store) makeKey(ctx context.Context) (id uuid.UUID, private *rsa.PrivateKey, created time.Time, err error) {
	id = uuid.New()
	if private, err = rsa.GenerateKey(rand.Reader, keyBits); err != nil {
		return id, nil, created, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return id, nil, created, err
	}
	sealed, err := s.sealer.Seal(uuid.Nil, id, raw)
	if err != nil {
		return id, nil, created, err
	}
	key := jose.JSONWebKey{Key: private.Public(), KeyID: id.String(), Algorithm: string(jose.RS256), Use: "sig"}
	public, err := key.MarshalJSON()
	if err != nil {
		return id, nil, created, err
	}
	err = s.db.InNoTenant(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `delete from signing_keys where created_at < now() - $1::interval`, keyLife+2*Retention)
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, `
			insert into signing_keys (id, private, public) values ($1, $2, $3)
			returning created_at`, id, sealed, string(public)).Scan(&created)
	})
	s.public.Clear()
	return id, private, created, err
}
