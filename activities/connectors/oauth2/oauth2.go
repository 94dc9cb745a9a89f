// Package oauth2 ends tokens at an OAuth 2.0 authorization server: revocation
// by RFC 7009, and its proof by RFC 7662 or by use.
//
// A 200 from a revocation endpoint proves nothing (RFC 7009 section 2.2 wants
// one for any token, known or not), so what counts is the probe.
package oauth2

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Config are the settings of a connector of type oauth2.
type Config struct {
	RevocationURL string               `yaml:"revocation_url"`
	ClientID      string               `yaml:"client_id"`
	ClientSecret  connectors.SecretRef `yaml:"client_secret"`
	Auth          string               `yaml:"auth"` // basic (default) or post
	// IntrospectionURL, where given, is the positive control and the proof.
	IntrospectionURL string `yaml:"introspection_url"`
	// TokenURL, where given, makes the stronger proof for refresh tokens: one
	// use after the revocation, which must fail.
	TokenURL string `yaml:"token_url"`
	// AdminURL, where given, is an Ory Hydra's admin API: grants are listed by
	// subject, which is the principal's SCIM id, and ended whole.
	AdminURL string `yaml:"admin_url"`
}

// Connector implements Revoker, Verifier, Prover and Discoverer.
type Connector struct {
	config Config
	secret connectors.Secret
	client *http.Client
}

// New validates the settings and resolves the client's secret.
func New(c Config) (*Connector, error) {
	if c.Auth == "" {
		c.Auth = "basic"
	}
	switch {
	case c.RevocationURL == "" && c.AdminURL == "":
		return nil, errors.New("revocation_url is missing")
	case c.ClientID == "" && c.RevocationURL != "":
		return nil, errors.New("client_id is missing")
	case c.Auth != "basic" && c.Auth != "post":
		return nil, errors.New("auth is basic or post")
	}
	for _, address := range []string{c.RevocationURL, c.IntrospectionURL, c.TokenURL, c.AdminURL} {
		if address == "" {
			continue
		}
		if u, err := url.Parse(address); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			return nil, errors.New(address + " is not an http(s) URL")
		}
	}
	secret, err := c.ClientSecret.Resolve()
	if err != nil {
		return nil, errors.Join(errors.New("client_secret"), err)
	}
	return &Connector{config: c, secret: secret, client: connectors.NewHTTPClient()}, nil
}

// Accepts implements connectors.Connector: tokens are ended by their value,
// grants by subject and client, whose escapes have one spelling.
func (c *Connector) Accepts(r connectors.Registration) (string, error) {
	switch {
	case r.Shared:
		return "", errors.New("a token or grant cannot be shared")
	case r.Kind == connectors.Grant && c.config.AdminURL != "":
		subject, client, err := parseGrant(r.Reference)
		if err != nil {
			return "", err
		}
		return GrantReference(subject, client), nil
	case r.Kind != connectors.RefreshToken && r.Kind != connectors.AccessToken || c.config.RevocationURL == "":
		return "", errors.New("kind must be refresh_token or access_token (with revocation_url), or grant (with admin_url)")
	case !r.HasSecret:
		return "", errors.New("a token is revoked by its value: register it as the secret")
	}
	return r.Reference, nil
}

// Close implements connectors.Connector.
func (c *Connector) Close() { c.client.CloseIdleConnections() }
