// Package mcp runs an MCP server and its authorization server in-process, as the demonstration and tests of
// MCP's Enterprise-Managed Authorization need them: the authorization server issues access tokens of 24 hours
// for the grants of an identity provider, and the MCP server accepts them until they expire.
package mcp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/leaverhq/leaver/internal/devstack"
	"github.com/leaverhq/leaver/internal/devstack/openid"
)

const (
	// TokenLife is the lifetime of access tokens, as in the example of MCP's specification.
	TokenLife = 24 * time.Hour

	grantJWT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	keyID    = "mcp"
	maxBody  = 1 << 20
)

// Server is a running MCP server with its authorization server.
type Server struct {
	Issuer string // of the access tokens
	Secret string // of the client [openid.ClientID]

	idp  *openid.Provider
	key  *ecdsa.PrivateKey
	stop func()

	mu   sync.Mutex
	seen map[string]bool // the jti of each accepted grant
}

// Start starts a server on a free loopback port that trusts the grants of an identity provider.
func Start(ctx context.Context, idp *openid.Provider) (*Server, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate the key of the MCP server: %w", err)
	}
	listener, issuer, err := devstack.Listen(ctx, "the MCP server")
	if err != nil {
		return nil, err
	}
	s := &Server{
		Issuer: issuer, Secret: rand.Text(), idp: idp, key: key, seen: make(map[string]bool),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", s.token)
	mux.HandleFunc("GET /jwks.json", s.jwks)
	mux.HandleFunc("POST /mcp", s.call)
	s.stop = devstack.Serve(ctx, listener, mux)
	return s, nil
}

// Close stops the server.
func (s *Server) Close() { s.stop() }

// URL returns the URL of the MCP server, which is the audience of its access tokens.
func (s *Server) URL() string { return s.Issuer + "/mcp" }

// JWKSURL returns where the keys of the access tokens are.
func (s *Server) JWKSURL() string { return s.Issuer + "/jwks.json" }

// Redeem exchanges a grant of the identity provider for an access token.
func (s *Server) Redeem(ctx context.Context, grant string) (string, error) {
	form := url.Values{"grant_type": {grantJWT}, "assertion": {grant}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Issuer+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(openid.ClientID, s.Secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Token string `json:"access_token"`
		Error string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("the authorization server answered %d without JSON", resp.StatusCode)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the authorization server answered %d %s", resp.StatusCode, answer.Error)
	}
	return answer.Token, nil
}

// token serves the token endpoint of the authorization server.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	token, err := s.redeem(r)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": token, "token_type": "Bearer", "expires_in": int(TokenLife.Seconds()),
	})
}

// redeem verifies the client and a grant, and returns an access token for the grant's subject.
func (s *Server) redeem(r *http.Request) (string, error) {
	client, secret, _ := r.BasicAuth()
	if client != openid.ClientID || subtle.ConstantTimeCompare([]byte(secret), []byte(s.Secret)) != 1 {
		return "", errors.New("invalid_client")
	}
	if err := r.ParseForm(); err != nil || r.PostForm.Get("grant_type") != grantJWT {
		return "", errors.New("unsupported_grant_type")
	}
	grant, err := jwt.ParseSigned(r.PostForm.Get("assertion"), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || grant.Headers[0].ExtraHeaders["typ"] != openid.HeaderIDJAG {
		return "", errors.New("invalid_grant")
	}
	keys, err := s.keysOfIDP(r.Context())
	if err != nil {
		return "", err
	}
	var claims openid.IDJAG
	expected := jwt.Expected{Issuer: s.idp.Issuer, AnyAudience: jwt.Audience{s.Issuer}, Time: time.Now()}
	if grant.Claims(keys, &claims) != nil || claims.Validate(expected) != nil || claims.Expiry == nil ||
		len(claims.Audience) != 1 || claims.ClientID != client || claims.Resource != s.URL() || !s.first(claims.ID) {
		return "", errors.New("invalid_grant")
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: s.key},
		(&jose.SignerOptions{}).WithType("at+jwt").WithHeader("kid", keyID))
	if err != nil {
		return "", err
	}
	now := time.Now()
	return jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: s.Issuer, Subject: claims.Subject, Audience: jwt.Audience{s.URL()}, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(TokenLife)),
	}).Claims(map[string]any{"client_id": client, "scope": claims.Scope}).Serialize()
}

// first reports whether the id of a grant is new, and stores it.
func (s *Server) first(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := id == "" || s.seen[id]
	s.seen[id] = true
	return !known
}

func (s *Server) keysOfIDP(ctx context.Context) (*jose.JSONWebKeySet, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.idp.Issuer+"/keys", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var keys jose.JSONWebKeySet
	return &keys, json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&keys)
}

func (s *Server) jwks(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: &s.key.PublicKey, KeyID: keyID, Use: "sig", Algorithm: string(jose.ES256)},
	}})
}

// call serves the MCP server: it answers each tool call whose access token is valid.
func (s *Server) call(w http.ResponseWriter, r *http.Request) {
	secret, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	token, err := jwt.ParseSigned(secret, []jose.SignatureAlgorithm{jose.ES256})
	var claims jwt.Claims
	expected := jwt.Expected{Issuer: s.Issuer, AnyAudience: jwt.Audience{s.URL()}, Time: time.Now()}
	if err != nil || token.Claims(&s.key.PublicKey, &claims) != nil || claims.Validate(expected) != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var request struct {
		ID     json.RawMessage `json:"id"`
		Method string          `json:"method"`
	}
	err = json.NewDecoder(io.LimitReader(r.Body, maxBody)).Decode(&request)
	if err != nil || request.Method != "tools/call" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"jsonrpc": "2.0", "id": request.ID,
		"result": map[string]any{"content": []map[string]string{{"type": "text", "text": "sent"}}},
	})
}
