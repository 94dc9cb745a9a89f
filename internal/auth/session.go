package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/audit"
	"github.com/leaverhq/leaver/internal/fault"
)

const (
	// SessionTTL is how long a session lasts at most.
	SessionTTL = 8 * time.Hour
	// SignInTTL is how long the secret of a sign-in is valid.
	SignInTTL = 5 * time.Minute

	signInKind  = "sign-in"
	sessionKind = "session"
	// maxSessions limits the sessions that one token opens within SessionTTL.
	maxSessions = 50
)

// IsSignIn reports whether a secret is that of a sign-in.
func IsSignIn(secret string) bool { return strings.HasPrefix(secret, tokenPrefix+"_"+signInKind+"_") }

// IsSession reports whether a secret is that of a session. A session opens no other session, so that it ends after
// [SessionTTL].
func IsSession(secret string) bool { return strings.HasPrefix(secret, tokenPrefix+"_"+sessionKind+"_") }

// ErrSessions is returned if a token has opened too many sessions.
var ErrSessions = fault.New(fault.Throttled, fmt.Sprintf("the token has opened %d sessions within %s: use one of them",
	maxSessions, SessionTTL))

// ErrSignIn is returned if a sign-in has been used, has expired or is not valid.
var ErrSignIn = fault.New(fault.Forbidden, "the sign-in is not valid, has expired or was used: request another")

// NewSignIn returns a secret that opens one session of a token of the installation, within [SignInTTL].
func (s *Store) NewSignIn(ctx context.Context, token uuid.UUID) (string, error) {
	secret := newSecret(signInKind)
	err := s.db.InTenant(ctx, uuid.Nil, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `delete from sign_ins where expires_at < now()`); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `insert into sign_ins (hash, token_id, expires_at) values ($1, $2, $3)`,
			hash(secret), token, time.Now().Add(SignInTTL))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("create a sign-in: %w", err)
	}
	return secret, nil
}

// OpenSession opens a session by the secret of a sign-in, which it uses up, or of a token of one of [OperatorClasses].
// It returns the secret of the session, whose class and actor are those of the token.
// Errors: [ErrSignIn], [ErrUnauthorized], [ErrSessions].
func (s *Store) OpenSession(ctx context.Context, secret string) (string, error) {
	used := IsSignIn(secret)
	var token uuid.UUID
	if !used {
		if IsSession(secret) {
			return "", ErrUnauthorized
		}
		caller, err := s.Authenticate(ctx, secret, OperatorClasses()...)
		if err != nil {
			return "", err
		}
		token = caller.TokenID
	}
	opened := newSecret(sessionKind)
	err := s.db.InTenant(ctx, uuid.Nil, func(tx pgx.Tx) error {
		if used {
			err := tx.QueryRow(ctx, `delete from sign_ins where hash = $1 and expires_at > now() returning token_id`,
				hash(secret)).Scan(&token)
			if err != nil {
				return err
			}
		}
		return insertSession(ctx, tx, token, opened)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return "", ErrSignIn
	}
	if err != nil {
		return "", fmt.Errorf("open a session: %w", err)
	}
	return opened, nil
}

// insertSession stores a session of a valid token, and records it as an act of the token's owner.
func insertSession(ctx context.Context, tx pgx.Tx, token uuid.UUID, secret string) error {
	var recent int
	err := tx.QueryRow(ctx, `
		with locked as (select id from tokens where id = $1 for update)
		select count(t.id) from locked l left join tokens t on t.session_of = l.id and t.created_at > now() - $2::interval`,
		token, SessionTTL).Scan(&recent)
	if err != nil {
		return err
	}
	if recent >= maxSessions {
		return ErrSessions
	}
	session := Token{ID: uuid.New(), SessionOf: &token}
	expires := time.Now().Add(SessionTTL).UTC().Truncate(time.Second)
	session.ExpiresAt = &expires
	err = tx.QueryRow(ctx, `
		insert into tokens (id, class, hash, description, expires_at, created_by, session_of)
		select $1, class, $2, left('session of ' || coalesce(nullif(description, ''), id::text), 512), $3,
		       class || '-token/' || id, id
		  from tokens where id = $4 and tenant_id is null and revoked_at is null
		   and (expires_at is null or expires_at > now())
		returning class, description, created_at, created_by`, session.ID, hash(secret), expires, token).
		Scan(&session.Class, &session.Description, &session.CreatedAt, &session.CreatedBy)
	if err != nil {
		return err
	}
	ctx = audit.WithActor(ctx, session.CreatedBy)
	return audit.Record(ctx, tx, uuid.Nil, audit.TokenIssue, session.ID.String(), nil, session)
}

// SignInPerson issues a token for a person that an OpenID provider has signed in, for [SessionTTL], and records the
// person. It returns the secret of a sign-in, by which alone the token is used.
func (s *Store) SignInPerson(ctx context.Context, class Class, name, issuer, subject string) (string, error) {
	person := personOf(issuer, subject)
	token, _, err := s.Issue(audit.WithActor(ctx, "login/"+person), uuid.Nil, NewToken{
		Class: class, Description: truncate(name + ", " + person), TTL: SessionTTL,
	})
	if err != nil {
		return "", err
	}
	return s.NewSignIn(ctx, token.ID)
}

// RefusePerson records that a person whom an OpenID provider has signed in has no role. A person who tries again within
// a minute is not recorded again, so that repeated attempts do not fill the evidence. Only the newest 200 acts are
// searched, to bound the query.
func (s *Store) RefusePerson(ctx context.Context, name, issuer, subject string, reason error) error {
	person := personOf(issuer, subject)
	err := s.db.InTenant(ctx, uuid.Nil, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `select pg_advisory_xact_lock(hashtext('sign-in'), hashtext($1))`, person); err != nil {
			return err
		}
		var again bool
		err := tx.QueryRow(ctx, `
			select exists (
			 select 1 from (select verb, object, at from admin_acts where tenant_id is null order by id desc limit 200) recent
			  where verb = $1 and object = $2 and at > now() - interval '1 minute')`, audit.SignInRefuse, person).Scan(&again)
		if err != nil || again {
			return err
		}
		return audit.Record(audit.WithActor(ctx, "login/"+person), tx, uuid.Nil, audit.SignInRefuse, person, nil,
			map[string]string{"name": truncate(name), "reason": reason.Error()})
	})
	if err != nil {
		return fmt.Errorf("record a refused sign-in: %w", err)
	}
	return nil
}

// maxDescription limits the description of a token or a person, in bytes.
const maxDescription = 512

// personOf returns how acts name a person.
func personOf(issuer, subject string) string { return truncate(subject + " of " + issuer) }

// truncate returns a text of at most maxDescription bytes of valid UTF-8 without control characters.
func truncate(text string) string {
	plain := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, text)
	return strings.ToValidUTF8(plain[:min(len(plain), maxDescription)], "")
}

// CloseSession revokes a session: at once in this process, within cacheTTL in others. It does nothing if the secret is
// not that of an open session.
func (s *Store) CloseSession(ctx context.Context, secret string) error {
	err := s.db.InTenant(ctx, uuid.Nil, func(tx pgx.Tx) error {
		var id, of uuid.UUID
		var class Class
		err := tx.QueryRow(ctx, `
			update tokens set revoked_at = now() where hash = $1 and session_of is not null and revoked_at is null
			returning id, class, session_of`, hash(secret)).Scan(&id, &class, &of)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		ctx := audit.WithActor(ctx, Caller{TokenID: of, Class: class}.Actor())
		before := Token{ID: id, Class: class, SessionOf: &of}
		return audit.Record(ctx, tx, uuid.Nil, audit.TokenRevoke, id.String(), before, nil)
	})
	if err != nil {
		return fmt.Errorf("close the session: %w", err)
	}
	s.forget()
	return nil
}
