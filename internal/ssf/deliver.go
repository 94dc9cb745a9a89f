package ssf

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
)

// Token is an undelivered security event token.
type Token struct {
	JTI   uuid.UUID
	SET   string    // signed, in compact form
	About uuid.UUID // the principal; zero: the stream itself
}

// signal is an undelivered row of the table signals.
type signal struct {
	JTI           uuid.UUID
	Principal     *uuid.UUID
	PrincipalType *string
	Type          string
	Event         json.RawMessage
	Txn           string
	At            time.Time
	Name          *string // by which the stream names the principal; nil is leaver's id
}

// Waiting returns the next undelivered tokens of a stream, signed and in order, and whether there are
// more. A limit of 0 returns none.
func (s *Store) Waiting(
	ctx context.Context, tenant uuid.UUID, stream Stream, limit int,
) (tokens []Token, more bool, err error) {
	signals, err := database.Rows(ctx, s.db, tenant, pgx.RowToStructByPos[signal], `
		select jti, principal_id, principal_type, type, event, txn, created_at, (
		         select n.original from principal_names n
		          where n.tenant_id = $1 and n.principal_id = g.principal_id and n.kind = any ($4) and n.issuer in ('', $5)
		            and ($6 <> 'email' or n.value like '%@%')
		            and not exists ( -- a name of another principal would end the sessions of that one
		              select 1 from principal_names o
		               where o.tenant_id = $1 and o.value = n.value and o.kind = any ($4) and o.issuer in ('', $5)
		                 and o.principal_id <> n.principal_id and o.until is null)
		          order by n.until desc nulls first, array_position($4, n.kind), n.position limit 1)
		  from signals g
		 where tenant_id = $1 and stream_id = $2 and settled_at is null order by id limit $3`,
		tenant, stream.ID, limit+1, stream.nameKinds(), stream.SubjectIssuer, stream.SubjectFormat)
	if err != nil {
		return nil, false, fmt.Errorf("read the undelivered signals of stream %s: %w", stream.ID, err)
	}
	if more = len(signals) > limit; more {
		signals = signals[:limit]
	}
	for _, g := range signals {
		set, err := s.sign(ctx, stream, g)
		if err != nil {
			return nil, false, err
		}
		token := Token{JTI: g.JTI, SET: set}
		if g.Principal != nil {
			token.About = *g.Principal
		}
		tokens = append(tokens, token)
	}
	return tokens, more, nil
}

// sign returns the signed token of a signal (RFC 8417; SSF 1.0 section 4). Repeated calls for a signal
// use the same jti.
func (s *Store) sign(ctx context.Context, stream Stream, g signal) (string, error) {
	signer, err := s.signer(ctx)
	if err != nil {
		return "", err
	}
	claims := map[string]any{
		"iss": stream.Issuer, "aud": stream.Audience, "jti": g.JTI.String(), "iat": g.At.Unix(),
		"sub_id": subject(stream, g), "events": map[string]json.RawMessage{g.Type: g.Event},
	}
	if g.Txn != "" {
		claims["txn"] = g.Txn
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode a security event: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign a security event: %w", err)
	}
	return signed.CompactSerialize()
}

// The formats by which a stream may name its subjects, besides leaver's own issuer and SCIM id.
const (
	FormatIssuer = "iss_sub" // the sub of another issuer
	FormatEmail  = "email"
)

// nameKinds returns the kinds of names that can be a stream's subject, the first one before others.
func (s Stream) nameKinds() []string {
	switch s.SubjectFormat {
	case FormatIssuer:
		return []string{
			directory.NameSubject, directory.NameClient, directory.NameExternalID, directory.NameUserName,
		}
	case FormatEmail:
		return []string{directory.NameEmail, directory.NameUserName}
	}
	return []string{}
}

// subject returns the subject identifier of an event: the resource's path for SCIM events (RFC 9967),
// the stream's id for events about the stream, and otherwise issuer and id (RFC 9493).
func subject(stream Stream, g signal) map[string]string {
	switch {
	case g.Principal == nil || g.PrincipalType == nil:
		return map[string]string{"format": "opaque", "id": stream.ID.String()}
	case strings.HasPrefix(g.Type, prov):
		path := "/" + *g.PrincipalType + "s/" + g.Principal.String()
		return map[string]string{"format": "scim", "uri": path, "id": g.Principal.String()}
	case stream.SubjectFormat == FormatEmail && g.Name != nil:
		return map[string]string{"format": FormatEmail, "email": *g.Name}
	case stream.SubjectFormat == FormatIssuer && g.Name != nil:
		return map[string]string{"format": FormatIssuer, "iss": stream.SubjectIssuer, "sub": *g.Name}
	}
	return map[string]string{"format": "iss_sub", "iss": stream.Issuer, "sub": g.Principal.String()}
}

// Refusal is the error with which a receiver refuses a token (RFC 8935 section 2.3).
type Refusal struct {
	Err         string `json:"err"`
	Description string `json:"description"`
}

// maxDetail limits the stored error text of a receiver, in bytes.
const maxDetail = 500

// Settle stores that a receiver accepted a token, or why it refused it. The token is not sent again.
// Settling it again changes nothing. goesOn reports whether the stream is still enabled and has the
// same endpoint.
func (s *Store) Settle(
	ctx context.Context, tenant uuid.UUID, stream Stream, jti uuid.UUID, refusal *Refusal,
) (goesOn bool, err error) {
	outcome, detail := "delivered", ""
	if refusal != nil {
		outcome, detail = "refused", clean(refusal.Err+": "+refusal.Description)
	}
	goesOn, err = database.Row(ctx, s.db, tenant, pgx.RowTo[bool], `
		with settled as (
		  update signals set settled_at = now(), outcome = $4, detail = $5
		   where tenant_id = $1 and stream_id = $2 and jti = $3 and settled_at is null returning 1),
		said as (
		  update streams set last_error = $5, last_error_at = case when $4 = 'refused' then now() end
		   where tenant_id = $1 and id = $2 and (last_error <> '' or $4 = 'refused') and exists (select 1 from settled))
		select exists (select 1 from streams where tenant_id = $1 and id = $2 and status = 'enabled' and endpoint = $6)`,
		tenant, stream.ID, jti, outcome, detail, stream.Endpoint)
	if err != nil {
		return false, fmt.Errorf("settle a token: %w", err)
	}
	return goesOn, nil
}

// Acknowledge stores that a receiver accepted tokens.
func (s *Store) Acknowledge(ctx context.Context, tenant, stream uuid.UUID, jtis []uuid.UUID) error {
	err := database.Exec(ctx, s.db, tenant, `
		update signals set settled_at = now(), outcome = 'delivered'
		 where tenant_id = $1 and stream_id = $2 and jti = any ($3) and settled_at is null`, tenant, stream, jtis)
	if err != nil {
		return fmt.Errorf("acknowledge tokens: %w", err)
	}
	return nil
}

// failureLease is how long the relay does not start a push of a stream after a failed delivery, which the
// stream's workflow retries.
const failureLease = 2 * time.Minute

// Failed stores the error of a delivery that will be retried, and keeps the stream claimed.
func (s *Store) Failed(ctx context.Context, tenant, stream uuid.UUID, why string) error {
	err := database.Exec(ctx, s.db, tenant, `
		update streams set last_error = $3, last_error_at = now(), claimed_until = now() + $4::interval
		 where tenant_id = $1 and id = $2`, tenant, stream, clean(why), failureLease)
	if err != nil {
		return fmt.Errorf("store the delivery error of stream %s: %w", stream, err)
	}
	return nil
}

// clean replaces control characters in a peer's text, and truncates it to maxDetail bytes.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxDetail {
		text = strings.ToValidUTF8(text[:maxDetail], "")
	}
	return text
}

// Pushing identifies a stream that has tokens to push.
type Pushing struct {
	Tenant uuid.UUID
	Stream uuid.UUID
}

// pushLease is how long a claimed stream cannot be claimed again. A stream that has nothing left to
// push is released earlier.
const pushLease = 10 * time.Second

// Claim claims and returns streams of all tenants that have tokens to push and that are not claimed.
func (s *Store) Claim(ctx context.Context, limit int) ([]Pushing, error) {
	found, err := database.Rows(ctx, s.db, uuid.Nil, pgx.RowToStructByPos[Pushing],
		`select tenant_id, stream_id from claim_streams($1, $2)`, limit, pushLease)
	if err != nil {
		return nil, fmt.Errorf("claim streams: %w", err)
	}
	return found, nil
}

// Release ends the claim of a stream whose tokens were pushed. If more were stored since, it notifies the relay.
func (s *Store) Release(ctx context.Context, tenant, stream uuid.UUID) error {
	err := database.Exec(ctx, s.db, tenant, `
		with released as (update streams set claimed_until = null where tenant_id = $1 and id = $2)
		select pg_notify('`+channel+`', '') where exists (
		  select 1 from signals where tenant_id = $1 and stream_id = $2 and settled_at is null)`, tenant, stream)
	if err != nil {
		return fmt.Errorf("release stream %s: %w", stream, err)
	}
	return nil
}

// putBack ends the claim of a stream whose push could not be started. It does not notify the relay:
// the next poll tries again.
func (s *Store) putBack(ctx context.Context, p Pushing) error {
	err := database.Exec(ctx, s.db, p.Tenant, `
		update streams set claimed_until = null where tenant_id = $1 and id = $2`, p.Tenant, p.Stream)
	if err != nil {
		return fmt.Errorf("put back stream %s: %w", p.Stream, err)
	}
	return nil
}

// sweepBatch limits the rows that one statement of a sweep changes.
const sweepBatch = 5000

// Sweep expires signals that have been undelivered for longer than [Retention], and deletes those that
// were settled longer ago, in batches.
func (s *Store) Sweep(ctx context.Context) error {
	for swept := int64(sweepBatch); swept >= sweepBatch; {
		var err error
		swept, err = database.Row(ctx, s.db, uuid.Nil, pgx.RowTo[int64],
			`select sweep_signals($1, $2)`, Retention, sweepBatch)
		if err != nil {
			return fmt.Errorf("sweep the signals: %w", err)
		}
	}
	return nil
}

// Lag is the delivery backlog of a stream.
type Lag struct {
	Stream  uuid.UUID  `json:"streamId"`
	Waiting int        `json:"waiting"`
	Oldest  *time.Time `json:"oldest,omitempty"`
	Refused int        `json:"refused"` // within the retention
	Expired int        `json:"expired"`
}

// Lags returns the delivery backlogs of a tenant's streams, by stream id.
func (s *Store) Lags(ctx context.Context, tenant uuid.UUID) (map[uuid.UUID]Lag, error) {
	lags := make(map[uuid.UUID]Lag)
	var l Lag
	fields := []any{&l.Stream, &l.Waiting, &l.Oldest, &l.Refused, &l.Expired}
	collect := database.Each(fields, func() { lags[l.Stream] = l })
	err := database.Together(ctx, s.db, tenant, database.Statement{Args: []any{tenant}, Collect: collect, SQL: `
		select s.id, w.n, w.oldest,
		       (select count(*) from signals g where g.tenant_id = $1 and g.stream_id = s.id and g.outcome = 'refused'),
		       (select count(*) from signals g where g.tenant_id = $1 and g.stream_id = s.id and g.outcome = 'expired')
		  from streams s
		  left join lateral (
		    select count(*) n, min(g.created_at) oldest from signals g
		     where g.tenant_id = $1 and g.stream_id = s.id and g.settled_at is null) w on true
		 where s.tenant_id = $1`})
	if err != nil {
		return nil, fmt.Errorf("read the delivery backlogs: %w", err)
	}
	return lags, nil
}
