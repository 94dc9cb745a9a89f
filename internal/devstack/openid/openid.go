// Package openid runs an OpenID provider (zitadel/oidc) in-process, as the
// downstream that issues, introspects, refreshes and revokes tokens in the
// drill and in tests.
package openid

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/text/language"

	"github.com/leaverhq/leaver/internal/devstack"
)

// ClientID is the client that tokens are issued to, and that may revoke them.
const ClientID = "agent-platform"

// OtherClientID is another client of the provider, with the same secret. The
// provider's response to a revocation by this client proves nothing, because it
// does not own the tokens.
const OtherClientID = "somebody-else"

const redirectURI = "http://localhost/callback"

// Provider is a running OpenID provider.
type Provider struct {
	Issuer       string
	ClientSecret string

	store *store
	stop  func()
	// refuses is set while the provider refuses revocations.
	refuses atomic.Bool
}

// Start starts a provider on a free loopback port.
func Start(ctx context.Context) (*Provider, error) {
	listener, issuer, err := devstack.Listen(ctx, "the OpenID provider")
	if err != nil {
		return nil, err
	}
	p := &Provider{Issuer: issuer, ClientSecret: rand.Text()}
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails, see crypto/rand
	crypto := op.NewAES256GCMCrypto(key, "1")
	p.store = newStore(p.ClientSecret, crypto)
	provider, err := op.NewProvider(&op.Config{CryptoKey: key, GrantTypeRefreshToken: true, AuthMethodPost: true},
		p.store, op.StaticIssuer(p.Issuer), op.WithAllowInsecure(), op.WithCrypto(crypto),
		op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("configure the OpenID provider: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", provider)
	mux.Handle("POST /oauth/token", p.store.exchanges(p.Issuer, provider))
	mux.HandleFunc("POST /revoke", func(w http.ResponseWriter, r *http.Request) {
		if p.refuses.Load() {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"error":"unsupported_token_type"}`) // RFC 7009 section 2.2.1
			return
		}
		provider.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET "+consentPath, p.store.listConsents)
	mux.HandleFunc("DELETE "+consentPath, p.store.revokeConsents)
	p.stop = devstack.Serve(ctx, listener, mux)
	return p, nil
}

// Close stops the provider.
func (p *Provider) Close() { p.stop() }

// Refuse makes the provider refuse revocations, as one that does not support them for the token's type, or accept them
// again.
func (p *Provider) Refuse(refuse bool) { p.refuses.Store(refuse) }

// RevocationURL returns the URL of the revocation endpoint (RFC 7009).
func (p *Provider) RevocationURL() string { return p.Issuer + "/revoke" }

// IntrospectionURL returns the URL of the introspection endpoint (RFC 7662).
func (p *Provider) IntrospectionURL() string { return p.Issuer + "/oauth/introspect" }

// TokenURL returns the URL of the token endpoint (RFC 6749).
func (p *Provider) TokenURL() string { return p.Issuer + "/oauth/token" }

// Grant holds the tokens that the token endpoint issued.
type Grant struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
}

// Authorize performs the authorization code flow for a subject over HTTP, as a
// browser and an agent platform do, and returns the tokens.
func (p *Provider) Authorize(ctx context.Context, subject string) (Grant, error) {
	browser := newBrowser()
	callback, err := p.signIn(ctx, browser, p.Issuer+"/authorize?"+url.Values{
		"client_id": {ClientID}, "redirect_uri": {redirectURI}, "response_type": {"code"},
		"scope": {"openid offline_access"}, "state": {"drill"},
	}.Encode(), subject)
	if err != nil {
		return Grant{}, err
	}
	return p.token(ctx, url.Values{
		"grant_type": {"authorization_code"}, "code": {callback.Query().Get("code")}, "redirect_uri": {redirectURI},
	})
}

func newBrowser() *http.Client {
	jar, _ := cookiejar.New(nil) // never fails without options
	return &http.Client{
		Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// SignIn signs a subject in at an authorization request, as a browser does, and returns where the provider redirects
// to.
func (p *Provider) SignIn(ctx context.Context, request, subject string) (*url.URL, error) {
	return p.signIn(ctx, newBrowser(), request, subject)
}

func (p *Provider) signIn(ctx context.Context, browser *http.Client, request, subject string) (*url.URL, error) {
	login, err := redirect(ctx, browser, request)
	if err != nil {
		return nil, err
	}
	id := login.Query().Get("authRequestID")
	if err := p.store.login(id, subject); err != nil {
		return nil, err
	}
	return redirect(ctx, browser, p.Issuer+"/authorize/callback?id="+url.QueryEscape(id))
}

// AddClient adds a client with the secret of the others, before the provider's first request.
func (p *Provider) AddClient(id, redirectURI string) {
	p.store.clients[id] = storage.WebClient(id, p.ClientSecret, redirectURI)
}

// SetGroups sets the groups of a subject, which the UserInfo response has, before the provider's first request.
func (p *Provider) SetGroups(subject string, groups ...string) { p.store.groups[subject] = groups }

// ErrInvalidGrant is returned if the provider refuses a refresh token.
var ErrInvalidGrant = errors.New("invalid_grant")

// Refresh exchanges a refresh token, which cannot be used again. Error: [ErrInvalidGrant].
func (p *Provider) Refresh(ctx context.Context, refreshToken string) (Grant, error) {
	return p.token(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}})
}

// Active reports whether the introspection of a token by its client returns active.
func (p *Provider) Active(ctx context.Context, token string) (bool, error) {
	var answer struct {
		Active bool `json:"active"`
	}
	_, err := p.post(ctx, p.IntrospectionURL(), url.Values{"token": {token}}, &answer)
	return answer.Active, err
}

func (p *Provider) token(ctx context.Context, form url.Values) (Grant, error) {
	var answer struct {
		Grant
		Error string `json:"error"`
	}
	status, err := p.post(ctx, p.TokenURL(), form, &answer)
	switch {
	case err != nil:
		return Grant{}, err
	case answer.Error == "invalid_grant":
		return Grant{}, ErrInvalidGrant
	case status != http.StatusOK:
		return Grant{}, fmt.Errorf("the token endpoint answered %d %s", status, answer.Error)
	}
	return answer.Grant, nil
}

func (p *Provider) post(ctx context.Context, address string, form url.Values, into any) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(ClientID, p.ClientSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return 0, err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return 0, fmt.Errorf("%s answered %d without JSON", address, resp.StatusCode)
	}
	return resp.StatusCode, nil
}

func redirect(ctx context.Context, browser *http.Client, address string) (*url.URL, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := browser.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusFound && resp.StatusCode != http.StatusSeeOther {
		return nil, fmt.Errorf("%s answered %d, not a redirect", req.URL.Path, resp.StatusCode)
	}
	return resp.Location()
}

// store is zitadel's in-memory storage with refresh tokens that can be
// introspected: they are issued in the form that the provider decrypts for
// access tokens. Its lock guards the reads that the storage does not guard.
type store struct {
	*storage.Storage
	crypto op.Crypto
	mu     sync.Mutex
	// consents are the scopes that subjects have granted to clients, by subject and client.
	consents map[string]map[string][]string
	clients  map[string]*storage.Client
	groups   map[string][]string // by subject
}

// people is a user store in which every subject exists.
type people struct{}

func person(subject string) *storage.User {
	return &storage.User{ID: subject, Username: subject, Password: "drill", PreferredLanguage: language.English}
}

func (people) GetUserByID(id string) *storage.User         { return person(id) }
func (people) GetUserByUsername(name string) *storage.User { return person(name) }
func (people) ExampleClientID() string                     { return "" }

func newStore(secret string, crypto op.Crypto) *store {
	clients := map[string]*storage.Client{
		ClientID:      storage.WebClient(ClientID, secret, redirectURI),
		OtherClientID: storage.WebClient(OtherClientID, secret, redirectURI),
	}
	return &store{
		Storage: storage.NewStorageWithClients(people{}, clients), crypto: crypto,
		consents: make(map[string]map[string][]string), clients: clients, groups: make(map[string][]string),
	}
}

// SetUserinfoFromToken implements op.Storage.
func (s *store) SetUserinfoFromToken(
	ctx context.Context, info *oidc.UserInfo, tokenID, subject, origin string,
) error {
	if err := s.Storage.SetUserinfoFromToken(ctx, info, tokenID, subject, origin); err != nil {
		return err
	}
	if groups, ok := s.groups[subject]; ok {
		info.AppendClaims("groups", groups)
	}
	return nil
}

func (s *store) login(request, subject string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.CheckUsernamePassword(subject, "drill", request)
}

// CreateAccessAndRefreshTokens implements op.Storage.
func (s *store) CreateAccessAndRefreshTokens(
	ctx context.Context, request op.TokenRequest, current string,
) (string, string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if current != "" {
		current = s.inner(current)
	}
	access, refresh, expires, err := s.Storage.CreateAccessAndRefreshTokens(ctx, request, current)
	if err != nil {
		return "", "", time.Time{}, err
	}
	s.consent(request)
	outer, err := s.crypto.Encrypt(refresh + ":" + request.GetSubject())
	return access, outer, expires, err
}

// inner returns the storage's id of a refresh token, or "" for a token in
// another form.
func (s *store) inner(outer string) string {
	plain, err := s.crypto.Decrypt(outer)
	if err != nil {
		return ""
	}
	id, _, _ := strings.Cut(plain, ":")
	return id
}

// TokenRequestByRefreshToken implements op.Storage.
func (s *store) TokenRequestByRefreshToken(ctx context.Context, refreshToken string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Storage.TokenRequestByRefreshToken(ctx, s.inner(refreshToken))
}

// GetRefreshTokenInfo implements op.Storage.
func (s *store) GetRefreshTokenInfo(ctx context.Context, clientID, token string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Storage.GetRefreshTokenInfo(ctx, clientID, s.inner(token))
}

// SetIntrospectionFromToken implements op.Storage.
func (s *store) SetIntrospectionFromToken(
	ctx context.Context, answer *oidc.IntrospectionResponse, tokenID, subject, clientID string,
) error {
	s.mu.Lock()
	_, _, err := s.Storage.GetRefreshTokenInfo(ctx, clientID, tokenID)
	s.mu.Unlock()
	if err == nil {
		answer.Subject, answer.ClientID = subject, clientID
		return nil
	}
	return s.Storage.SetIntrospectionFromToken(ctx, answer, tokenID, subject, clientID)
}

// RevokeToken implements op.Storage.
func (s *store) RevokeToken(ctx context.Context, token, userID, clientID string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Storage.RevokeToken(ctx, token, userID, clientID)
}
