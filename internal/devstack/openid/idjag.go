package openid

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	// TypeIDJAG is the token type of an Identity Assertion JWT Authorization Grant
	// (draft-ietf-oauth-identity-assertion-authz-grant section 4).
	TypeIDJAG = "urn:ietf:params:oauth:token-type:id-jag"
	// HeaderIDJAG is the typ header of such a grant.
	HeaderIDJAG = "oauth-id-jag+jwt"

	typeIDToken   = "urn:ietf:params:oauth:token-type:id_token"
	tokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	idjagLife     = 5 * time.Minute
)

// IDJAG are the claims of an Identity Assertion JWT Authorization Grant.
type IDJAG struct {
	jwt.Claims
	ClientID string `json:"client_id"` // at the resource's authorization server
	Resource string `json:"resource,omitempty"`
	Scope    string `json:"scope,omitempty"`
}

// Exchange exchanges an ID token for a grant at the authorization server audience, for a resource, as an MCP
// client does in Enterprise-Managed Authorization.
func (p *Provider) Exchange(ctx context.Context, idToken, audience, resource, scope string) (string, error) {
	var answer struct {
		Token string `json:"access_token"`
		Type  string `json:"issued_token_type"`
		Error string `json:"error"`
	}
	status, err := p.post(ctx, p.TokenURL(), url.Values{
		"grant_type": {tokenExchange}, "requested_token_type": {TypeIDJAG}, "audience": {audience},
		"resource": {resource}, "scope": {scope}, "subject_token": {idToken}, "subject_token_type": {typeIDToken},
	}, &answer)
	if err == nil && (status != http.StatusOK || answer.Type != TypeIDJAG) {
		err = fmt.Errorf("the token exchange answered %d %s", status, answer.Error)
	}
	return answer.Token, err
}

// exchanges serves token exchanges for grants, which zitadel/oidc does not know, and leaves other requests to
// next.
func (s *store) exchanges(issuer string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil || r.PostForm.Get("requested_token_type") != TypeIDJAG {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		token, err := s.exchange(r, issuer)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issued_token_type": TypeIDJAG, "access_token": token, "token_type": "N_A",
			"expires_in": int(idjagLife.Seconds()), "scope": r.PostForm.Get("scope"),
		})
	})
}

// exchange verifies the client and its ID token, and returns a grant for the token's subject.
func (s *store) exchange(r *http.Request, issuer string) (string, error) {
	client, secret, _ := r.BasicAuth()
	if err := s.AuthorizeClientIDSecret(r.Context(), client, secret); err != nil {
		return "", errors.New("invalid_client")
	}
	form := r.PostForm
	if form.Get("grant_type") != tokenExchange || form.Get("subject_token_type") != typeIDToken ||
		form.Get("audience") == "" {
		return "", errors.New("invalid_request")
	}
	key, err := s.SigningKey(r.Context())
	if err != nil {
		return "", err
	}
	public, err := s.KeySet(r.Context())
	if err != nil {
		return "", err
	}
	subject, err := jwt.ParseSigned(form.Get("subject_token"), []jose.SignatureAlgorithm{key.SignatureAlgorithm()})
	var claims jwt.Claims
	if err != nil || subject.Claims(public[0].Key(), &claims) != nil ||
		claims.Validate(jwt.Expected{Issuer: issuer, AnyAudience: jwt.Audience{client}, Time: time.Now()}) != nil {
		return "", errors.New("invalid_grant")
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: key.SignatureAlgorithm(), Key: key.Key()},
		(&jose.SignerOptions{}).WithType(HeaderIDJAG).WithHeader("kid", key.ID()))
	if err != nil {
		return "", err
	}
	now := time.Now()
	return jwt.Signed(signer).Claims(IDJAG{
		Claims: jwt.Claims{
			Issuer: issuer, Subject: claims.Subject, Audience: jwt.Audience{form.Get("audience")}, ID: rand.Text(),
			IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(idjagLife)),
		},
		ClientID: client, Resource: form.Get("resource"), Scope: form.Get("scope"),
	}).Serialize()
}
