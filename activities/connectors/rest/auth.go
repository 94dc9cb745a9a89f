package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v3"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"

	"github.com/leaverhq/leaver/activities/connectors"
)

// auth is how requests authenticate: one of its members, or none of them.
type auth struct {
	bearer              *template
	user, password      *template // basic
	header              string
	value               *template // of the header
	tokenURL            *template // OAuth 2.0
	clientID, clientKey *template
	scopes              *template // separated by spaces
	params              map[string]*template
	// issuer, subject and key are those of a token that the connector signs, for a JWT bearer grant (RFC 7523) at tokenURL
	// or, without tokenURL, for itself or an exchange; the key is RSA, in PEM.
	issuer, subject, key *template
	audience             *template // of a JWT bearer grant; nil for tokenURL
	exchange             *template // the address that gives an access token for a signed one; nil for none
	signature            *signature
}

// hasToken reports whether the connector has an access token of its own, for all credentials.
func (a *auth) hasToken() bool { return a.tokenURL != nil || a.issuer != nil }

// isShared reports whether the connector has an access token or a key of its own, for all credentials.
func (a *auth) isShared() bool { return a.hasToken() || a.signature != nil }

// settles returns the age below which the downstream may not know an access token everywhere yet. GitHub gives tokens
// in an exchange before they are replicated.
func (a *auth) settles() time.Duration {
	if a.exchange != nil {
		return replication
	}
	return 0
}

// check returns an error if an address or the key of the authentication is not valid. address checks an address.
func (a *auth) check(v values, address func(name, address string) error) error {
	if a == nil {
		return nil
	}
	for _, endpoint := range []*template{a.tokenURL, a.exchange} {
		if endpoint == nil {
			continue
		}
		if err := address("the address of the token endpoint", endpoint.text(v)); err != nil {
			return err
		}
	}
	if a.key == nil {
		return nil
	}
	_, err := parseKey(a.key.text(v))
	return err
}

func parseAuth(n *yaml.Node, in scope) (*auth, error) {
	a := &auth{}
	one := func(into **template) func(*yaml.Node) error {
		return func(n *yaml.Node) (err error) {
			if *into, err = parseTemplate(n, in); err != nil {
				return err
			}
			return (*into).checkPlain()
		}
	}
	if n.Kind == yaml.ScalarNode && n.Value == "none" {
		return a, nil
	}
	need := func(n *yaml.Node, given ...*template) error {
		for _, t := range given {
			if t == nil {
				return at(n, "a member of the authentication is missing")
			}
		}
		return nil
	}
	err := decodeFields(n, fields{
		"bearer": one(&a.bearer),
		"basic": func(n *yaml.Node) error {
			err := decodeFields(n, fields{"user": one(&a.user), "password": one(&a.password)})
			return errors.Join(err, need(n, a.user, a.password))
		},
		"header": func(n *yaml.Node) error {
			err := decodeFields(n, fields{"name": scalar(&a.header), "value": one(&a.value)})
			if err == nil && !validHeader.MatchString(a.header) {
				err = at(n, "name must be the name of a header, got %q", a.header)
			}
			return errors.Join(err, need(n, a.value))
		},
		"client_credentials": func(n *yaml.Node) error {
			err := decodeFields(n, fields{
				"token_url": one(&a.tokenURL), "client_id": one(&a.clientID), "client_secret": one(&a.clientKey),
				"scopes": one(&a.scopes), "params": templates(&a.params, in),
			})
			return errors.Join(err, need(n, a.tokenURL, a.clientID, a.clientKey))
		},
		"jwt_bearer": func(n *yaml.Node) error {
			err := decodeFields(n, fields{
				"token_url": one(&a.tokenURL), "issuer": one(&a.issuer), "subject": one(&a.subject), "key": one(&a.key),
				"scopes": one(&a.scopes), "audience": one(&a.audience),
			})
			return errors.Join(err, need(n, a.tokenURL, a.issuer, a.key))
		},
		"jwt": func(n *yaml.Node) error {
			err := decodeFields(n, fields{
				"issuer": one(&a.issuer), "subject": one(&a.subject), "key": one(&a.key), "exchange": one(&a.exchange),
			})
			switch {
			case err != nil:
			case a.issuer == nil || a.key == nil:
				err = at(n, "issuer and key are required")
			case a.exchange != nil && a.exchange.uses(in.secrets):
				err = at(n, "a secret must not be in the URL")
			}
			return err
		},
		"sigv4": func(n *yaml.Node) error {
			a.signature = &signature{}
			err := decodeFields(n, fields{
				"service": one(&a.signature.service), "region": one(&a.signature.region),
				"access_key_id": one(&a.signature.keyID), "secret_access_key": one(&a.signature.secret),
			})
			return errors.Join(err, need(n, a.signature.templates()...))
		},
	})
	if err == nil && len(n.Content) != 2 {
		err = at(n, "exactly one kind of authentication is required, or none")
	}
	if err == nil && a.isShared() && a.anyTemplate(func(t *template) bool { return t.uses(in.targets) }) {
		err = at(n, "the connector has one access token for all credentials, or one key: use settings only")
	}
	return a, err
}

// names reports whether a template of the authentication has a placeholder.
func (a *auth) names(name string) bool {
	return a.anyTemplate(func(t *template) bool { return slices.Contains(t.names, name) })
}

// anyTemplate reports whether a template of the authentication matches.
func (a *auth) anyTemplate(matches func(*template) bool) bool {
	if a == nil {
		return false
	}
	for _, t := range a.params {
		if matches(t) {
			return true
		}
	}
	for _, t := range append(a.signature.templates(),
		a.bearer, a.user, a.password, a.value, a.tokenURL, a.clientID, a.clientKey, a.scopes, a.issuer, a.subject, a.key,
		a.audience, a.exchange,
	) {
		if t != nil && matches(t) {
			return true
		}
	}
	return false
}

// tokens caches the connector's own access token.
type tokens struct {
	lock    chan struct{} // holds one element while the token is used
	token   *oauth2.Token
	fetched time.Time
}

func newTokens() tokens { return tokens{lock: make(chan struct{}, 1)} }

// replication is the longest that a token of an exchange is taken to be unknown somewhere.
const replication = 10 * time.Second

// freshToken is the age below which a refused token means that the credentials are wrong, and not that the token
// was revoked.
const freshToken = time.Minute

// get returns the access token, which it requests if there is none or it is about to expire.
func (s *tokens) get(ctx context.Context, a *auth, v values, client *http.Client) (string, error) {
	select {
	case s.lock <- struct{}{}:
		defer func() { <-s.lock }()
	case <-ctx.Done():
		return "", connectors.Retryable("wait for the connector's access token: %s", connectors.TransportReason(ctx.Err()))
	}
	if s.token.Valid() {
		return s.token.AccessToken, nil
	}
	bound := *client
	bound.Transport = within(ctx, client.Transport)
	token, err := a.source(context.WithValue(ctx, oauth2.HTTPClient, &bound), v, client).Token()
	if err != nil {
		return "", tokenError(err)
	}
	s.token, s.fetched = token, time.Now()
	return token.AccessToken, nil
}

// refused forgets a token that the downstream refused, and returns the error for that: retryable unless the token
// was fresh, or younger than settles.
func (s *tokens) refused(token string, settles time.Duration) error {
	s.lock <- struct{}{}
	defer func() { <-s.lock }()
	if s.token == nil || s.token.AccessToken != token {
		return connectors.Retryable("the downstream refused the connector's access token, which has been replaced since")
	}
	age := time.Since(s.fetched)
	if age < settles {
		return connectors.RetryableAfter(time.Second,
			"the downstream refused the connector's new access token, which it may not know everywhere yet")
	}
	fresh := age < freshToken
	s.token = nil
	if fresh {
		return connectors.Permanent(
			"the downstream refused the connector's new access token: check its client and its rights")
	}
	return connectors.Retryable("the downstream refused the connector's access token: the next attempt requests another")
}

// roundTripper is a function that implements http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// within returns a transport whose requests end with ctx: the JWT bearer grant of golang.org/x/oauth2 sends its
// request without a context.
func within(ctx context.Context, transport http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) { return transport.RoundTrip(r.WithContext(ctx)) })
}

// source returns the source of the connector's access token. client is for the exchange of a signed token; those of
// golang.org/x/oauth2 use the client in ctx.
func (a *auth) source(ctx context.Context, v values, client *http.Client) oauth2.TokenSource {
	if a.tokenURL == nil {
		return &assertionSource{a, ctx, v, client}
	}
	var scopes []string
	if a.scopes != nil {
		scopes = strings.Fields(a.scopes.text(v))
	}
	if a.issuer != nil {
		config := jwt.Config{
			Email: a.issuer.text(v), PrivateKey: []byte(a.key.text(v)), Scopes: scopes, TokenURL: a.tokenURL.text(v),
		}
		if a.subject != nil {
			config.Subject = a.subject.text(v)
		}
		if a.audience != nil {
			config.Audience = a.audience.text(v)
		}
		return config.TokenSource(ctx)
	}
	params := make(url.Values, len(a.params))
	for name, t := range a.params {
		params.Set(name, t.text(v))
	}
	config := clientcredentials.Config{
		ClientID: a.clientID.text(v), ClientSecret: a.clientKey.text(v), TokenURL: a.tokenURL.text(v), Scopes: scopes,
		EndpointParams: params,
	}
	return config.TokenSource(ctx)
}

// tokenError classifies the error of a token request. It quotes nothing of the answer but a known error code.
func tokenError(err error) error {
	var refused *oauth2.RetrieveError
	var classified *connectors.Error
	if errors.As(err, &classified) {
		return fmt.Errorf("request the connector's access token: %w", err)
	}
	if !errors.As(err, &refused) || refused.Response == nil {
		return connectors.Retryable("request the connector's access token: %s", connectors.TransportReason(err))
	}
	status := connectors.StatusError(refused.Response, connectors.ErrorCode(refused.Body))
	if connectors.IsPermanent(status) {
		return connectors.Permanent("request the connector's access token: %w: check its client, key and scopes, and the "+
			"clock of this machine", status)
	}
	return connectors.RetryableAfter(connectors.RetryAfter(status), "request the connector's access token: %w", status)
}

// authenticate adds the authentication to a request. token is the access token that it used, or empty.
func (c *Connector) authenticate(req *http.Request, a *auth, v values) (token string, err error) {
	switch {
	case a == nil:
		return "", nil
	case a.hasToken():
		if token, err = c.tokens.get(req.Context(), a, v, c.client); err == nil {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		return token, err
	case a.signature != nil:
		return "", c.sign(req, a.signature, v)
	case a.bearer != nil:
		value, err := a.bearer.header(v)
		req.Header.Set("Authorization", "Bearer "+value)
		return "", err
	case a.user != nil:
		req.SetBasicAuth(a.user.text(v), a.password.text(v))
	case a.value != nil:
		value, err := a.value.header(v)
		req.Header.Set(a.header, value)
		return "", err
	}
	return "", nil
}
