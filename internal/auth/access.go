package auth

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Access are the claims of a token by which a user or an agent calls a gateway.
type Access struct {
	Issuer   string
	Subject  string
	Client   string // client_id (RFC 9068), cid (Okta), azp (OpenID) or appid (Entra); empty if there is none
	Audience string // of the tenant's issuer
	IssuedAt time.Time
	Expiry   time.Time
}

// OpenAccess verifies a token of an issuer of a tenant that has the use access.
// Errors: [ErrUnauthorized], [ErrKeysUnavailable].
func (s *Store) OpenAccess(ctx context.Context, raw, tenantName string) (Access, error) {
	o, err := s.openJWT(ctx, raw, tenantName, UseAccess, verify)
	if err != nil {
		return Access{}, err
	}
	c := o.claims
	if c.Subject == "" || c.IssuedAt == nil {
		return Access{}, ErrUnauthorized
	}
	return Access{
		Issuer: o.issuer, Subject: c.Subject, Client: cmp.Or(c.ClientID, c.CID, c.AuthorizedParty, c.AppID),
		Audience: o.audience, IssuedAt: c.IssuedAt.Time(), Expiry: c.Expiry.Time(),
	}, nil
}

// Introspection returns the issuer that answers whether the tokens of a platform's issuer are active.
// Error: [ErrIssuerNotFound].
func (s *Store) Introspection(ctx context.Context, c Caller) (Issuer, error) {
	issuers, err := s.Issuers(ctx, c.Tenant.ID)
	if err != nil {
		return Issuer{}, err
	}
	for _, i := range issuers {
		if i.Issuer == c.Issuer && i.IntrospectionURL != "" && slices.Contains(i.Uses, UseAccess) {
			return i, nil
		}
	}
	return Issuer{}, ErrIssuerNotFound
}
