package rest

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"

	"github.com/leaverhq/leaver/activities/connectors"
)

const (
	// assertionLifetime is the lifetime of a signed token. GitHub accepts at most 10 minutes.
	assertionLifetime = 9 * time.Minute
	// clockSkew is how far the downstream's clock may be behind.
	clockSkew = time.Minute
)

// assertionSource signs tokens with the connector's RSA key, as for a key pair of Snowflake, and exchanges them where
// the authentication has an exchange, as GitHub Apps do.
type assertionSource struct {
	*auth
	ctx    context.Context //nolint:containedctx // of one call of Token, as in golang.org/x/oauth2
	values values
	client *http.Client
}

// Token implements oauth2.TokenSource.
func (s *assertionSource) Token() (*oauth2.Token, error) {
	key, err := parseKey(s.key.text(s.values))
	if err != nil {
		return nil, connectors.Permanent("%w", err)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithType("JWT"),
	)
	if err != nil {
		return nil, connectors.Permanent("sign the connector's token: %w", err)
	}
	now := time.Now()
	claims := jwt.Claims{
		Issuer: s.issuer.text(s.values), IssuedAt: jwt.NewNumericDate(now.Add(-clockSkew)),
		Expiry: jwt.NewNumericDate(now.Add(assertionLifetime)),
	}
	if s.subject != nil {
		claims.Subject = s.subject.text(s.values)
	}
	signed, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		return nil, connectors.Permanent("sign the connector's token: %w", err)
	}
	if s.exchange == nil {
		return &oauth2.Token{AccessToken: signed, Expiry: now.Add(assertionLifetime)}, nil
	}
	return s.exchanged(signed)
}

// exchanged returns the access token that the downstream gives for a signed token.
func (s *assertionSource) exchanged(signed string) (*oauth2.Token, error) {
	address := s.exchange.text(s.values)
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, address, http.NoBody)
	if err != nil {
		return nil, connectors.Permanent("the address of the exchange is not valid with these settings")
	}
	req.Header.Set("Authorization", "Bearer "+signed)
	req.Header.Set("Accept", "application/json")
	resp, raw, err := connectors.Exchange(s.client, req)
	if err != nil {
		return nil, err
	}
	var token struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
	}
	wait := throttled(resp, time.Now())
	switch {
	case wait > 0:
		return nil, connectors.RetryableAfter(wait, "the downstream returned %d: its rate limit is used up", resp.StatusCode)
	case resp.StatusCode/100 != 2:
		return nil, &oauth2.RetrieveError{Response: resp, Body: raw}
	case json.Unmarshal(raw, &token) != nil || token.Token == "":
		return nil, connectors.Retryable("the downstream returned %d without a token", resp.StatusCode)
	}
	return &oauth2.Token{AccessToken: token.Token, Expiry: token.ExpiresAt}, nil
}

// parseKey returns the RSA private key of a text in PEM.
func parseKey(text string) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("the key of the authentication must be in PEM")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return nil, errors.New("the key of the authentication must be an RSA private key")
	}
	return key, nil
}
