// Package oauth2 revokes tokens at an OAuth 2.0 authorization server (RFC 7009), and
// verifies the revocation by introspection (RFC 7662) or by use.
//
// A 200 from a revocation endpoint proves nothing, since RFC 7009 section 2.2 requires it
// for unknown tokens, too. Only the probe proves the end.
package oauth2

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Config are the settings of a connector of type oauth2.
type Config struct {
	RevocationURL string               `yaml:"revocation_url"`
	ClientID      string               `yaml:"client_id"`
	ClientSecret  connectors.SecretRef `yaml:"client_secret"`
	Auth          string               `yaml:"auth"` // basic (default) or post
	// IntrospectionURL enables the probes before and after a revocation.
	IntrospectionURL string `yaml:"introspection_url"`
	// TokenURL enables the stronger proof for refresh tokens: one use after the
	// revocation, which must fail.
	TokenURL string `yaml:"token_url"`
	// AdminURL is the URL of Ory Hydra's admin API. It enables grants, which are listed by
	// subject, the principal's SCIM id, and revoked with all their tokens.
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
		return nil, errors.New("revocation_url or admin_url is required")
	case c.ClientID == "" && c.RevocationURL != "":
		return nil, errors.New("client_id is required with revocation_url")
	case c.Auth != "basic" && c.Auth != "post":
		return nil, fmt.Errorf("auth must be basic or post, got %q", c.Auth)
	}
	for _, address := range []string{c.RevocationURL, c.IntrospectionURL, c.TokenURL, c.AdminURL} {
		if address == "" {
			continue
		}
		if u, err := url.Parse(address); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			return nil, fmt.Errorf("%q must be an absolute http or https URL", address)
		}
	}
	secret, err := c.ClientSecret.Resolve()
	if err != nil {
		return nil, fmt.Errorf("client_secret: %w", err)
	}
	return &Connector{config: c, secret: secret, client: connectors.NewHTTPClient()}, nil
}

// Downstream implements connectors.Located: the host of the server, whose users and clients are the
// same for every path.
func (c *Connector) Downstream() string {
	u, err := url.Parse(cmp.Or(c.config.AdminURL, c.config.RevocationURL))
	if err != nil { // New has parsed it
		return ""
	}
	return strings.ToLower(u.Host)
}

// Accepts implements connectors.Connector. A token is revoked by its value, and a grant by
// its subject and client, which it escapes canonically.
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
		return "", fmt.Errorf("kind must be refresh_token or access_token (with revocation_url), "+
			"or grant (with admin_url), got %s", r.Kind)
	case !r.HasSecret:
		return "", errors.New("a token is revoked by its value: register it as the secret")
	}
	return r.Reference, nil
}

// Close implements connectors.Connector.
func (c *Connector) Close() { c.client.CloseIdleConnections() }
