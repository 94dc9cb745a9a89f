package oauth2

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Revoke implements connectors.Revoker. It revokes a token by RFC 7009 section 2.1, and a
// grant by the admin API.
func (c *Connector) Revoke(ctx context.Context, t connectors.Target) (connectors.Answer, error) {
	if t.Kind == connectors.Grant {
		return c.endGrant(ctx, t)
	}
	if err := t.CheckFence(ctx); err != nil {
		return connectors.Answer{}, err
	}
	resp, body, err := c.post(ctx, c.config.RevocationURL, url.Values{
		"token": {t.Secret.Reveal()}, "token_type_hint": {hint(t.Kind)},
	})
	if err != nil {
		return connectors.Answer{}, err
	}
	return readRevocation(resp, body, t)
}

func hint(kind connectors.Kind) string {
	if kind == connectors.AccessToken {
		return "access_token"
	}
	return "refresh_token"
}

// post sends a form, authenticated as the configured client (RFC 6749 section 2.3.1).
func (c *Connector) post(ctx context.Context, address string, form url.Values) (*http.Response, []byte, error) {
	if c.config.Auth == "post" || c.secret == "" {
		form.Set("client_id", c.config.ClientID)
	}
	if c.config.Auth == "post" && c.secret != "" {
		form.Set("client_secret", c.secret.Reveal())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, nil, connectors.Permanent("build the request: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if c.config.Auth == "basic" && c.secret != "" {
		req.SetBasicAuth(url.QueryEscape(c.config.ClientID), url.QueryEscape(c.secret.Reveal()))
	}
	return connectors.Exchange(c.client, req)
}
