package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/leaverhq/leaver/internal/devstack/openid"
)

// gateway is a resource server that introspects the access token of one of Ada's agents.
type gateway struct {
	token  string // leaver's token of the gateway, which names the provider as issuer
	access string // the access token, which the provider issued for Ada
}

// admit issues an access token for Ada to her first agent's client, and checks that leaver calls it active.
func (d *drill) admit(ctx context.Context) error {
	provider := d.peers.openid
	if err := d.patch(ctx, "/Agents/"+d.agents[0], map[string]any{
		"op": "add", "path": "oAuthClientIdentifiers",
		"value": []map[string]string{{"clientId": openid.ClientID, "issuerUri": provider.Issuer}},
	}); err != nil {
		return err
	}
	if err := d.call(ctx, http.MethodPost, d.operate("/issuers"), d.operator, map[string]any{
		"issuer": provider.Issuer, "audience": openid.ClientID, "jwksUrl": provider.Issuer + "/keys",
		"introspectionUrl": provider.IntrospectionURL(), "uses": []string{"access"},
	}, nil); err != nil && !strings.Contains(err.Error(), "409") { // of an earlier run
		return err
	}
	var issued struct {
		Secret string `json:"secret"`
	}
	if err := d.call(ctx, http.MethodPost, d.operate("/tokens"), d.operator, map[string]any{
		"class": "platform", "description": "gateway of the demo", "issuer": provider.Issuer, "ttlSeconds": 3600,
	}, &issued); err != nil {
		return err
	}
	grant, err := provider.Authorize(ctx, d.ada)
	if err != nil {
		return err
	}
	d.gateway = gateway{token: issued.Secret, access: grant.AccessToken}
	active, err := d.introspect(ctx)
	if err == nil && !active {
		err = errors.New("the access token is not active before the deactivation")
	}
	return err
}

// turnAway checks, after the deactivation, that leaver calls the access token inactive although its issuer
// does not.
func (d *drill) turnAway(ctx context.Context) error {
	active, err := d.introspect(ctx)
	if err != nil {
		return err
	}
	after := elapsed(d.left)
	if active {
		return errors.New("leaver calls the access token of Ada's agent active after her deactivation")
	}
	alone, err := d.peers.openid.Active(ctx, d.gateway.access)
	if err != nil {
		return err
	}
	d.rows = append(d.rows, []string{
		"access token at a gateway", "OpenID provider", after, "-",
		fmt.Sprintf("the provider alone says active: %t; leaver, asked instead, says inactive", alone),
	})
	return nil
}

// introspect asks leaver whether the access token is active, as a gateway does (RFC 7662).
func (d *drill) introspect(ctx context.Context) (active bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+"/access/v1/introspect",
		strings.NewReader(url.Values{"token": {d.gateway.access}}.Encode()))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("X-Leaver-Token", d.gateway.token)
	req.SetBasicAuth(openid.ClientID, d.peers.openid.ClientSecret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Active bool `json:"active"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("the introspection answered %d: %w", resp.StatusCode, err)
	}
	return answer.Active, nil
}
