package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	envoy "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/authzen"
	"github.com/leaverhq/leaver/internal/extauthz"
)

const gatewayAudience = "https://mcp.example.com"

// accessToken returns an access token as the issuer's authorization server signs it.
func (p *idp) accessToken(t testing.TB, sub, client string, change func(map[string]any)) string {
	t.Helper()
	now := time.Now()
	claims := map[string]any{
		"iss": p.url, "sub": sub, "client_id": client, "aud": gatewayAudience,
		"iat": now.Unix(), "exp": now.Add(24 * time.Hour).Unix(),
	}
	if change != nil {
		change(claims)
	}
	return p.sign(t, "at+jwt", claims)
}

// byHTTP asks as Envoy's HTTP service does: it forwards method, path and headers.
func (i *installation) byHTTP(gateway, token, resource string) (int, string) {
	i.t.Helper()
	req, err := http.NewRequestWithContext(i.t.Context(), http.MethodPost, i.url+extauthz.BasePath+"/mcp?x=1", http.NoBody)
	if err != nil {
		i.t.Fatal(err)
	}
	req.Header.Set("X-Leaver-Token", gateway)
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("X-Leaver-Action", "tools/call")
	if resource != "" {
		req.Header.Set("X-Leaver-Resource", resource)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		i.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct{ Reason string }
	_ = json.NewDecoder(resp.Body).Decode(&body)
	return resp.StatusCode, body.Reason
}

// byGRPC asks as Envoy's gRPC service does.
func (i *installation) byGRPC(address, gateway, token, resource string) (int, string) {
	i.t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		i.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(i.t.Context(), "x-leaver-token", gateway), 10*time.Second)
	defer cancel()
	answer, err := envoy.NewAuthorizationClient(conn).Check(ctx, &envoy.CheckRequest{Attributes: &envoy.AttributeContext{
		Request: &envoy.AttributeContext_Request{Http: &envoy.AttributeContext_HttpRequest{
			Method: http.MethodPost, Path: "/mcp", Headers: map[string]string{"authorization": "Bearer " + token},
		}},
		ContextExtensions: map[string]string{"leaver-action": "tools/call", "leaver-resource": resource},
	}})
	if err != nil {
		i.t.Fatal(err)
	}
	denied := answer.GetDeniedResponse()
	if denied == nil {
		return http.StatusOK, ""
	}
	var body struct{ Reason string }
	_ = json.Unmarshal([]byte(denied.GetBody()), &body)
	return int(denied.GetStatus().GetCode()), body.Reason
}

// TestExtAuthz_DecidesByTheToken has one token a row, asked over HTTP and over gRPC.
func TestExtAuthz_DecidesByTheToken(t *testing.T) {
	p, stranger := newIDP(t), newIDP(t)
	i := install(t)
	i.apply("  - {group: sales, scopes: ['tools/call:crm_search']}\n")
	i.must("POST", "/v1/tenants/acme/issuers", i.operator, fmt.Sprintf(
		`{"issuer":%q,"audience":%q,"jwksUrl":%q,"uses":["access"]}`, p.url, gatewayAudience, p.url))
	ada := i.must("POST", "/scim/v2/Users", i.scim, `{"userName":"ada@example.com","externalId":"00u1","active":true}`)["id"].(string)
	gone := i.must("POST", "/scim/v2/Users", i.scim, `{"userName":"gone@example.com","externalId":"00u2","active":true}`)["id"].(string)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i.runsUntilTheEnd(func(ctx context.Context) { _ = i.app.Serve(ctx, listener, nil) }) // the test server has no HTTP/2
	address := listener.Addr().String()
	i.clientOf("writer", ada, "client-1", "")
	i.clientOf("left", gone, "client-1", "")
	i.createGroup("sales", ada)
	i.becomes(ada, "scope:tools/call:crm_search")
	i.stopWork() // a worker would suspend the agent
	i.deactivate(gone)
	expired := func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() }
	none := strings.Join([]string{"eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0", strings.Split(p.accessToken(t, "00u1", "client-1", nil), ".")[1], ""}, ".")
	for name, row := range map[string]struct {
		gateway, token, resource string
		status                   int
		reason                   string
	}{
		"an active user and agent":    {i.platform, p.accessToken(t, "00u1", "client-1", nil), "tool:crm_search", 200, ""},
		"a tool without its scope":    {i.platform, p.accessToken(t, "00u1", "client-1", nil), "tool:crm_delete", 403, "not_entitled"},
		"a user who left":             {i.platform, p.accessToken(t, "00u2", "client-1", nil), "tool:crm_search", 403, "owner_gone"},
		"an unknown client":           {i.platform, p.accessToken(t, "00u1", "client-9", nil), "tool:crm_search", 403, "unknown_agent"},
		"no client":                   {i.platform, p.accessToken(t, "00u1", "", nil), "tool:crm_search", 403, "agent_missing"},
		"an unknown subject":          {i.platform, p.accessToken(t, "00u9", "client-1", nil), "tool:crm_search", 403, "unknown_subject"},
		"a resource without an id":    {i.platform, p.accessToken(t, "00u1", "client-1", nil), "tool", 403, "invalid_resource"},
		"an expired token":            {i.platform, p.accessToken(t, "00u1", "client-1", expired), "", 401, "invalid_token"},
		"another audience":            {i.platform, p.accessToken(t, "00u1", "client-1", func(c map[string]any) { c["aud"] = "x" }), "", 401, "invalid_token"},
		"a foreign issuer":            {i.platform, stranger.accessToken(t, "00u1", "client-1", nil), "", 401, "invalid_token"},
		"alg none":                    {i.platform, none, "", 401, "invalid_token"},
		"a security event as token":   {i.platform, p.sign(t, "secevent+jwt", map[string]any{"iss": p.url, "sub": "00u1", "aud": gatewayAudience, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}), "", 401, "invalid_token"},
		"no token":                    {i.platform, "", "", 401, "invalid_token"},
		"no token of the gateway":     {"", p.accessToken(t, "00u1", "client-1", nil), "", 401, "gateway_unauthorized"},
		"a SCIM token as the proxy's": {i.scim, p.accessToken(t, "00u1", "client-1", nil), "", 401, "gateway_unauthorized"},
	} {
		if status, reason := i.byHTTP(row.gateway, row.token, row.resource); status != row.status || reason != row.reason {
			t.Errorf("%s over HTTP: %d %q, want %d %q", name, status, reason, row.status, row.reason)
		}
		if status, reason := i.byGRPC(address, row.gateway, row.token, row.resource); status != row.status ||
			reason != row.reason {
			t.Errorf("%s over gRPC: %d %q, want %d %q", name, status, reason, row.status, row.reason)
		}
	}
	if answer, err := authzen.NewStore(i.app.DB, i.app.Entitlements).DecideToken(t.Context(), i.tenant, auth.Access{
		Issuer: p.url, Subject: "00u1", Client: "client-1", IssuedAt: time.Now(),
	}, authzen.Request{Action: "read:own", ResourceType: "document", Resource: "of-bob"}); err != nil ||
		answer.Reason != authzen.NotEntitled {
		t.Errorf("an action with the suffix of own scopes: %s, %v; want not_entitled", answer.Reason, err)
	}
	_, _, foreign := i.newTenant("umbrella")
	if status, reason := i.byHTTP(foreign, p.accessToken(t, "00u1", "client-1", nil), ""); status != http.StatusUnauthorized {
		t.Errorf("another tenant's gateway: %d %q, want 401", status, reason)
	}
	if status, _ := i.call("GET", "/scim/v2/Users", p.accessToken(t, "00u1", "client-1", nil), ""); status != http.StatusUnauthorized {
		t.Errorf("an access token at SCIM answered %d, want 401", status)
	}
}
