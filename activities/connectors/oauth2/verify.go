package oauth2

import (
	"context"
	"net/url"

	"github.com/leaverhq/leaver/activities/connectors"
)

// CanVerify reports whether items of a kind can be probed.
func (c *Connector) CanVerify(kind connectors.Kind, _ bool) bool {
	return kind == connectors.Grant || c.config.IntrospectionURL != ""
}

// Probe implements connectors.Verifier by introspection, which does not consume the token.
func (c *Connector) Probe(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	if t.Kind == connectors.Grant {
		return c.probeGrant(ctx, t)
	}
	if c.config.IntrospectionURL == "" {
		return connectors.Unknown, "no introspection_url is configured", nil
	}
	resp, body, err := c.post(ctx, c.config.IntrospectionURL, url.Values{
		"token": {t.Secret.Reveal()}, "token_type_hint": {hint(t.Kind)},
	})
	if err != nil {
		return connectors.Unknown, "", err
	}
	return readIntrospection(resp, body)
}

// Possesses implements connectors.Possession. The value of a token, by which it is revoked,
// proves possession. A grant belongs to the principal whose SCIM id is its subject.
func (c *Connector) Possesses(_ context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	if t.Kind != connectors.Grant {
		return connectors.Alive, "the registration contains the token, by which it is revoked", nil
	}
	subject, _, err := parseGrant(t.Reference)
	if err != nil {
		return connectors.Unknown, "", err
	}
	if subject != t.Principal.String() && subject != t.Agent.String() {
		return connectors.Dead, "the grant's subject is neither the principal's nor the agent's SCIM id", nil
	}
	return connectors.Alive, "the grant's subject is the principal's or the agent's SCIM id", nil
}

// Prove implements connectors.Prover. It uses the refresh token once, which must return
// invalid_grant. If the refresh succeeds, Prove revokes the new tokens and returns Alive.
func (c *Connector) Prove(ctx context.Context, t connectors.Target) (connectors.Vitality, string, error) {
	// A refused refresh may only mean that the token belongs to another client (RFC 6749
	// section 5.2), so introspection has to confirm it.
	vitality, detail, err := c.Probe(ctx, t)
	if err != nil || vitality == connectors.Alive || t.Kind != connectors.RefreshToken || c.config.TokenURL == "" {
		return vitality, detail, err
	}
	resp, body, err := c.post(ctx, c.config.TokenURL, url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {t.Secret.Reveal()},
	})
	if err != nil {
		return connectors.Unknown, "", err
	}
	vitality, detail, came, err := readRefresh(resp, body)
	if came == nil {
		return vitality, detail, err
	}
	if err := c.revokeGrant(ctx, t, came); err != nil {
		return connectors.Alive, "", connectors.Permanent("the refresh grant still succeeded, and the new tokens "+
			"could not be revoked: revoke the grant at the server (%w)", err)
	}
	return vitality, detail, nil
}

// revokeGrant revokes the tokens issued by a refresh that should have failed.
func (c *Connector) revokeGrant(ctx context.Context, t connectors.Target, came *grant) error {
	for kind, token := range map[string]string{"access_token": came.AccessToken, "refresh_token": came.RefreshToken} {
		if token == "" || token == t.Secret.Reveal() {
			continue
		}
		resp, body, err := c.post(ctx, c.config.RevocationURL, url.Values{"token": {token}, "token_type_hint": {kind}})
		if err != nil {
			return err
		}
		if _, err := readRevocation(resp, body, t); err != nil {
			return err
		}
	}
	return nil
}
