package directory

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/fault"
)

// The errors of subject identifiers.
var (
	// ErrInvalidSubject is returned for a malformed or unsupported subject identifier (RFC
	// 9493).
	ErrInvalidSubject = fault.New(fault.Invalid, "the subject identifier is malformed, or its format is not supported")
	// ErrAmbiguousSubject is returned when a subject identifier names several principals.
	ErrAmbiguousSubject = fault.New(fault.Unprocessable, "the subject identifier names several principals")
)

// subjectID is a subject identifier (RFC 9493), or the scim one of RFC 9967.
type subjectID struct {
	Format      string            `json:"format"`
	Email       string            `json:"email"`
	URI         string            `json:"uri"`
	Issuer      string            `json:"iss"`
	Subject     string            `json:"sub"`
	ID          string            `json:"id"`
	ExternalID  string            `json:"externalId"`
	User        json.RawMessage   `json:"user"`
	Identifiers []json.RawMessage `json:"identifiers"`
	Tenant      json.RawMessage   `json:"tenant"`
	Session     json.RawMessage   `json:"session"`
	Device      json.RawMessage   `json:"device"`
	Application json.RawMessage   `json:"application"`
}

// whole reports whether a complex subject identifies a user, and neither limits it to a
// session, a device or an application nor names a tenant.
func (id subjectID) whole() bool {
	return id.Tenant == nil && id.Session == nil && id.Device == nil && id.Application == nil
}

// Origin is where and when a token with subject identifiers was issued.
type Origin struct {
	Own      string // leaver's own issuer, whose subjects are known too
	Issuer   string
	IssuedAt time.Time // in whole seconds
}

// BySubject returns the principal that a subject identifier names. The `sub` of the token's issuer is any
// name of a principal; the `sub` of leaver's own issuer is a SCIM ID. An e-mail address is matched
// with userNames first, then with users' addresses. Deleted principals are found by their ID only.
// Errors: [ErrInvalidSubject], [ErrNotFound], [ErrAmbiguousSubject].
func (s *Store) BySubject(ctx context.Context, tenant uuid.UUID, raw json.RawMessage, by Origin) (Named, error) {
	by.IssuedAt = by.IssuedAt.Add(time.Second) // it was issued within the second, and so after what came before
	return s.bySubject(ctx, tenant, raw, by, false)
}

func (s *Store) bySubject(ctx context.Context, tenant uuid.UUID, raw json.RawMessage, by Origin,
	nested bool,
) (Named, error) {
	var id subjectID
	if json.Unmarshal(raw, &id) != nil || strings.ContainsRune(string(raw), 0) || strings.Contains(string(raw), `\u0000`) {
		return Named{}, ErrInvalidSubject
	}
	switch {
	case id.Format == "opaque" && id.ID != "":
		return s.byID(ctx, tenant, id.ID)
	case id.Format == "scim" && id.URI != "":
		return s.byID(ctx, tenant, id.URI[strings.LastIndex(id.URI, "/")+1:])
	case id.Format == "iss_sub" && id.Issuer != "" && id.Subject != "":
		if id.Issuer == by.Own {
			return s.byID(ctx, tenant, id.Subject)
		}
		if id.Issuer != by.Issuer { // subjects of other issuers are unknown here
			return Named{}, ErrNotFound
		}
		return s.Resolve(ctx, tenant, Reference{
			Issuers: []string{"", id.Issuer}, Value: id.Subject, IssuedAt: by.IssuedAt,
		})
	case id.Format == "email" && id.Email != "":
		return s.byEmail(ctx, tenant, id.Email, by)
	case id.Format == "account" && strings.HasPrefix(id.URI, "acct:"):
		account, err := url.PathUnescape(strings.TrimPrefix(id.URI, "acct:"))
		if err != nil {
			return Named{}, ErrInvalidSubject
		}
		return s.byEmail(ctx, tenant, account, by)
	case id.Format == "complex" && id.User != nil && !nested && id.whole():
		return s.bySubject(ctx, tenant, id.User, by, true)
	case id.Format == "aliases" && len(id.Identifiers) > 0 && !nested:
		return s.byAliases(ctx, tenant, id.Identifiers, by)
	}
	return Named{}, ErrInvalidSubject
}

// maxAliases bounds how many identifiers of one subject are looked up.
const maxAliases = 5

// byAliases returns the principal of the first identifier that names one.
func (s *Store) byAliases(ctx context.Context, tenant uuid.UUID, identifiers []json.RawMessage,
	by Origin,
) (Named, error) {
	if len(identifiers) > maxAliases {
		return Named{}, ErrInvalidSubject
	}
	err := ErrInvalidSubject
	for _, alias := range identifiers {
		found, failed := s.bySubject(ctx, tenant, alias, by, true)
		if failed == nil {
			return found, nil
		}
		if !errors.Is(failed, ErrInvalidSubject) && !errors.Is(failed, ErrNotFound) {
			return Named{}, failed
		}
		if errors.Is(failed, ErrNotFound) {
			err = failed
		}
	}
	return Named{}, err
}

func (s *Store) byID(ctx context.Context, tenant uuid.UUID, text string) (Named, error) {
	id, err := uuid.Parse(text)
	if err != nil {
		return Named{}, ErrNotFound
	}
	return s.only(ctx, tenant, named+`r.id = $2`, id)
}

// byEmail matches the userName first, which is unique, then the users' addresses. Errors:
// [ErrNotFound], [ErrAmbiguousSubject].
func (s *Store) byEmail(ctx context.Context, tenant uuid.UUID, email string, by Origin) (Named, error) {
	ref := Reference{Type: TypeUser, Issuers: []string{""}, Value: email, IssuedAt: by.IssuedAt}
	ref.Kinds = []string{NameUserName}
	found, err := s.Resolve(ctx, tenant, ref)
	if !errors.Is(err, ErrNotFound) {
		return found, err
	}
	ref.Kinds = []string{NameEmail}
	return s.Resolve(ctx, tenant, ref)
}

func (s *Store) only(ctx context.Context, tenant uuid.UUID, sql string, arg any) (Named, error) {
	found, err := s.named(ctx, tenant, sql, arg)
	switch {
	case err != nil:
		return Named{}, err
	case len(found) == 0:
		return Named{}, ErrNotFound
	case len(found) > 1:
		return Named{}, ErrAmbiguousSubject
	}
	return found[0], nil
}
