// Package login signs people in by an OpenID provider (OpenID Connect Core 1.0, authorization code with PKCE), and maps
// their groups to a class of tokens.
package login

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/fault"
)

// ErrNoRole is returned for a person none of whose groups is mapped to a role.
var ErrNoRole = fault.New(fault.Forbidden,
	"none of your groups is mapped to a role: ask for a group of login.operators, login.auditors or login.viewers")

// ErrRefused is returned if the provider did not sign the person in.
var ErrRefused = fault.New(fault.Forbidden, "the identity provider did not sign you in: try again")

// ErrUnavailable is returned if the provider does not answer.
var ErrUnavailable = fault.New(fault.Unavailable, "the identity provider does not answer: try again later")

// timeout bounds the requests to the provider for one sign-in.
const timeout = 10 * time.Second

// Person is a user that the provider signed in.
type Person struct {
	Issuer, Subject string
	Name            string // an e-mail address or a user name, for people to read
	Class           auth.Class
}

// Provider signs people in by the configured OpenID provider. It reads the provider's metadata at the first sign-in.
type Provider struct {
	config config.Login
	secret connectors.Secret
	client *http.Client

	mu       sync.Mutex
	provider *oidc.Provider
}

// New returns the provider of a configuration, or nil if none is configured.
func New(c config.Login) (*Provider, error) {
	if c.Issuer == "" {
		return nil, nil //nolint:nilnil // none is a valid configuration
	}
	if c.ClientID == "" || len(c.Operators)+len(c.Auditors)+len(c.Viewers) == 0 {
		return nil, errors.New("login: client_id is required, and at least one group in operators, auditors or viewers")
	}
	secret, err := connectors.SecretRef(c.ClientSecret).Resolve()
	if err != nil {
		return nil, fmt.Errorf("login.client_secret: %w", err)
	}
	return &Provider{config: c, secret: secret, client: connectors.NewHTTPClient()}, nil
}

// Attempt is what a sign-in must keep until the provider redirects back: in a cookie of the browser.
type Attempt struct {
	State    string `json:"state"`
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`
	// Port and Echo are of the command line that waits for the sign-in at a loopback port; 0 for a browser.
	Port int    `json:"port,omitempty"`
	Echo string `json:"echo,omitempty"`
}

// NewAttempt returns a new attempt with random values.
func NewAttempt() Attempt {
	return Attempt{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier()}
}

// discover returns the provider's metadata, which it reads once. Error: [ErrUnavailable].
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.provider == nil {
		// Keys are fetched later, with this context's client.
		found, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.client), p.config.Issuer)
		if err != nil {
			return nil, fmt.Errorf("%w (%w)", ErrUnavailable, err)
		}
		p.provider = found
	}
	return p.provider, nil
}

func (p *Provider) oauth(provider *oidc.Provider, redirect string) *oauth2.Config {
	scopes := append([]string{oidc.ScopeOpenID, "profile", "email"}, p.config.Scopes...)
	return &oauth2.Config{
		ClientID: p.config.ClientID, ClientSecret: p.secret.Reveal(), Endpoint: provider.Endpoint(),
		RedirectURL: redirect, Scopes: scopes,
	}
}

// URL returns where the browser signs in. redirect is where the provider sends it back. Error: [ErrUnavailable].
func (p *Provider) URL(ctx context.Context, a Attempt, redirect string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	provider, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	c := p.oauth(provider, redirect)
	return c.AuthCodeURL(a.State, oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)), nil
}

// Finish exchanges the code of an attempt whose state the caller has compared, and returns the person.
// With [ErrNoRole] it returns the person without a class. Errors: [ErrNoRole], [ErrRefused], [ErrUnavailable].
func (p *Provider) Finish(ctx context.Context, a Attempt, code, redirect string) (Person, error) {
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.client), timeout)
	defer cancel()
	provider, err := p.discover(ctx)
	if err != nil {
		return Person{}, err
	}
	tokens, err := p.oauth(provider, redirect).Exchange(ctx, code, oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return Person{}, refused(err)
	}
	raw, _ := tokens.Extra("id_token").(string)
	verified, err := provider.Verifier(&oidc.Config{ClientID: p.config.ClientID}).Verify(ctx, raw)
	if err != nil || verified.Nonce != a.Nonce {
		return Person{}, fmt.Errorf("%w (%w)", ErrRefused, errors.Join(errors.New("the ID token is not valid"), err))
	}
	person := Person{Issuer: verified.Issuer, Subject: verified.Subject}
	groups, err := p.read(&person, verified.Claims)
	if err != nil {
		return Person{}, err
	}
	if groups == nil { // many providers have them in the UserInfo response alone
		info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
		if err != nil {
			return Person{}, refused(err)
		}
		if info.Subject != person.Subject { // OpenID Connect Core section 5.3.2
			return Person{}, ErrRefused
		}
		if groups, err = p.read(&person, info.Claims); err != nil {
			return Person{}, err
		}
	}
	person.Class, err = p.class(groups)
	return person, err
}

// refused returns the error of a request that the provider refused, or that failed.
func refused(err error) error {
	var answered *oauth2.RetrieveError
	if errors.As(err, &answered) && answered.Response.StatusCode < http.StatusInternalServerError {
		return fmt.Errorf("%w (%w)", ErrRefused, err)
	}
	return fmt.Errorf("%w (%w)", ErrUnavailable, err)
}

// read takes the name, unless the person has one, and the groups from claims. groups is nil if the claim is absent.
func (p *Provider) read(person *Person, claims func(into any) error) (groups []string, err error) {
	var all map[string]any
	if err := claims(&all); err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrRefused, err)
	}
	for _, name := range []string{"email", "preferred_username"} {
		if text, ok := all[name].(string); ok && person.Name == "" {
			person.Name = text
		}
	}
	values, ok := all[cmp.Or(p.config.GroupsClaim, "groups")].([]any)
	if !ok {
		return nil, nil
	}
	groups = []string{}
	for _, v := range values {
		if group, ok := v.(string); ok {
			groups = append(groups, group)
		}
	}
	return groups, nil
}

// class returns the class with the most rights that the groups are mapped to. Error: [ErrNoRole].
func (p *Provider) class(groups []string) (auth.Class, error) {
	for _, role := range []struct {
		class auth.Class
		of    []string
	}{
		{auth.ClassOperator, p.config.Operators},
		{auth.ClassAuditor, p.config.Auditors},
		{auth.ClassViewer, p.config.Viewers},
	} {
		if slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(role.of, g) }) {
			return role.class, nil
		}
	}
	return "", ErrNoRole
}
