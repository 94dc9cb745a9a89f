package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/leaverhq/leaver/internal/devstack/mcp"
	"github.com/leaverhq/leaver/internal/devstack/openid"
)

// gateway has the tokens of two gateways, which ask leaver about the access tokens of one of Ada's agents: a resource
// server that introspects the provider's token, and the proxy of an MCP server.
type gateway struct {
	token  string // leaver's token of the resource server, which names the provider as issuer
	access string // the access token, which the provider issued for Ada
	proxy  string // leaver's token of the proxy, which names the MCP server's authorization server
	mcp    string // the access token of 24 hours for the MCP server
}

// admit issues the access tokens for Ada to her first agent's client, and checks that leaver permits both.
func (d *drill) admit(ctx context.Context) error {
	provider, server := d.peers.openid, d.peers.mcp
	if err := d.patch(ctx, "/Agents/"+d.agents[0], map[string]any{
		"op": "add", "path": "oAuthClientIdentifiers",
		"value": []map[string]string{
			{"clientId": openid.ClientID, "issuerUri": provider.Issuer},
			{"clientId": openid.ClientID, "issuerUri": server.Issuer},
		},
	}); err != nil {
		return err
	}
	var err error
	if d.gateway.token, err = d.gatewayOf(ctx, provider.Issuer, map[string]any{
		"issuer": provider.Issuer, "audience": openid.ClientID, "jwksUrl": provider.Issuer + "/keys",
		"introspectionUrl": provider.IntrospectionURL(), "uses": []string{"access"},
	}); err != nil {
		return err
	}
	if d.gateway.proxy, err = d.gatewayOf(ctx, server.Issuer, map[string]any{
		"issuer": server.Issuer, "audience": server.URL(), "jwksUrl": server.JWKSURL(), "uses": []string{"access"},
	}); err != nil {
		return err
	}
	grant, err := provider.Authorize(ctx, d.ada)
	if err != nil {
		return err
	}
	d.gateway.access = grant.AccessToken
	active, err := d.introspect(ctx)
	if err == nil && !active {
		err = errors.New("the access token is not active before the deactivation")
	}
	if err != nil {
		return err
	}
	return d.enter(ctx, grant.IDToken)
}

// gatewayOf trusts an issuer, and returns the secret of a token for a gateway that sees the issuer's tokens.
func (d *drill) gatewayOf(ctx context.Context, issuer string, body map[string]any) (string, error) {
	if err := d.call(ctx, http.MethodPost, d.operate("/issuers"), d.operator, body, nil); err != nil &&
		!strings.Contains(err.Error(), "409") { // of an earlier run
		return "", err
	}
	var issued struct {
		Secret string `json:"secret"`
	}
	err := d.call(ctx, http.MethodPost, d.operate("/tokens"), d.operator, map[string]any{
		"class": "platform", "description": "gateway of the demo", "issuer": issuer, "ttlSeconds": 3600,
	}, &issued)
	return issued.Secret, err
}

// enter gets an access token for the MCP server by MCP's Enterprise-Managed Authorization: the identity provider
// exchanges the ID token for a grant, and the authorization server redeems it.
func (d *drill) enter(ctx context.Context, idToken string) error {
	server := d.peers.mcp
	grant, err := d.peers.openid.Exchange(ctx, idToken, server.Issuer, server.URL(), "tools")
	if err != nil {
		return err
	}
	if d.gateway.mcp, err = server.Redeem(ctx, grant); err != nil {
		return err
	}
	for name, call := range map[string]func(context.Context) (int, error){"alone": d.callAlone, "asking": d.callAsking} {
		status, err := call(ctx)
		if err != nil {
			return fmt.Errorf("a tool call before the deactivation (%s): %w", name, err)
		}
		if status != http.StatusOK {
			return fmt.Errorf("a tool call before the deactivation (%s) answered %d, want 200", name, status)
		}
	}
	return nil
}

// turnAway checks, after the deactivation, that leaver denies both access tokens although their issuers do not.
func (d *drill) turnAway(ctx context.Context) error {
	active, err := d.introspect(ctx)
	if err != nil {
		return err
	}
	after := elapsed(d.left)
	if active {
		return errors.New("leaver calls the access token of Ada's agent active after her deactivation")
	}
	asking, err := d.callAsking(ctx)
	if err != nil {
		return err
	}
	afterCall := elapsed(d.left)
	if asking != http.StatusForbidden {
		return fmt.Errorf("a tool call of Ada's agent answered %d after her deactivation, want 403", asking)
	}
	alone, err := d.peers.openid.Active(ctx, d.gateway.access)
	if err != nil {
		return err
	}
	status, err := d.callAlone(ctx)
	if err != nil {
		return err
	}
	d.rows = append(d.rows, []string{
		"access token at a gateway", "OpenID provider", after, "-",
		fmt.Sprintf("the provider alone says active: %t; leaver, asked instead, says inactive", alone),
	}, []string{
		fmt.Sprintf("tool call, token of %.0f h", mcp.TokenLife.Hours()), "MCP server", afterCall, "-",
		fmt.Sprintf("the MCP server alone answers %d for %.0f h more; a proxy that asks leaver answers 403", status,
			(mcp.TokenLife - time.Since(d.left)).Hours()),
	})
	return nil
}

// introspect asks leaver whether the access token is active, as a resource server does (RFC 7662).
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

const toolCall = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"send_email","arguments":{}}}`

// callAlone calls a tool at the MCP server, which trusts the access token until it expires.
func (d *drill) callAlone(ctx context.Context) (status int, err error) {
	return d.bearing(ctx, d.peers.mcp.URL(), nil)
}

// callAsking calls a tool as a proxy passes the call on: it asks leaver first.
func (d *drill) callAsking(ctx context.Context) (status int, err error) {
	status, err = d.bearing(ctx, d.url+"/access/v1/ext-authz", map[string]string{
		"X-Leaver-Token": d.gateway.proxy, "X-Leaver-Action": "tools/call", "X-Leaver-Resource": "tool:send_email",
	})
	if err != nil || status != http.StatusOK {
		return status, err
	}
	return d.callAlone(ctx)
}

// bearing sends the tool call with the agent's access token for the MCP server.
func (d *drill) bearing(ctx context.Context, address string, headers map[string]string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(toolCall))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+d.gateway.mcp)
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
