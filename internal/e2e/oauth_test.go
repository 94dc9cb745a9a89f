package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/leaverhq/leaver/internal/auth"
)

// oauthClient is an OAuth client of the tenant acme.
type oauthClient struct {
	id  string
	key *ecdsa.PrivateKey
}

func (i *installation) addClient(scopes string) oauthClient {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k"}}})
	if err != nil {
		i.t.Fatal(err)
	}
	added := i.must("POST", "/v1/tenants/acme/clients", i.operator, fmt.Sprintf(`{"scopes":%s,"jwks":%s}`, scopes, keys))
	return oauthClient{added["id"].(string), key}
}

// access requests a token at the token endpoint.
func (i *installation) access(c oauthClient, scope string) string {
	i.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: c.key}, nil)
	if err != nil {
		i.t.Fatal(err)
	}
	assertion, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: c.id, Subject: c.id, Audience: jwt.Audience{i.url + "/t/acme"}, ID: rand.Text(),
		Expiry: jwt.NewNumericDate(time.Now().Add(time.Minute)),
	}).Serialize()
	if err != nil {
		i.t.Fatal(err)
	}
	resp, err := http.PostForm(i.url+"/t/acme/oauth2/token", url.Values{
		"grant_type": {"client_credentials"}, "scope": {scope}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	})
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	var body struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || body.Token == "" {
		i.t.Fatalf("the token endpoint answered %d, %v", resp.StatusCode, err)
	}
	return body.Token
}

// TestClient_ScopesSelectTheRoutes calls a route of each kind with each scope.
func TestClient_ScopesSelectTheRoutes(t *testing.T) {
	i := installAPI(t)
	ada := i.createUser("ada@example.com")
	client := i.addClient(`["scim","authzen","ssf.read","ssf.manage"]`)
	tokens := map[string]string{}
	for _, scope := range []string{"scim", "authzen", "ssf.read", "ssf.manage"} {
		tokens[scope] = i.access(client, scope)
	}
	evaluation := fmt.Sprintf(`{"subject":{"type":"user","id":%q},"action":{"name":"read"},"resource":{"type":"record","id":"1"}}`, ada)
	for route, c := range map[string]struct {
		body    string
		allowed map[string]int
		refused int
	}{
		"GET /scim/v2/Users/" + ada:             {"", map[string]int{"scim": 200}, 401},
		"POST /access/v1/evaluation":            {evaluation, map[string]int{"authzen": 200}, 401},
		"GET /v1/principals/" + ada + "/access": {"", map[string]int{"authzen": 200}, 401},
		"GET /v1/credentials":                   {"", nil, 401},
		"GET /v1/tenants":                       {"", nil, 401},
		"GET /ssf/v1/streams":                   {"", map[string]int{"ssf.read": 200, "ssf.manage": 200}, 401},
		"POST /ssf/v1/streams":                  {`{}`, map[string]int{"ssf.read": 403, "ssf.manage": 201}, 401},
		"DELETE /ssf/v1/streams?stream_id=00000000-0000-0000-0000-000000000000": {"", map[string]int{"ssf.read": 403, "ssf.manage": 404}, 401},
	} {
		var method, path string
		if _, err := fmt.Sscan(route, &method, &path); err != nil {
			t.Fatal(err)
		}
		for scope, token := range tokens {
			want, ok := c.allowed[scope]
			if !ok {
				want = c.refused
			}
			if status, answer := i.raw(method, path, token, c.body); status != want {
				t.Errorf("%s with %s answered %d %s, want %d", route, scope, status, answer, want)
			}
		}
	}
}

// TestClient_OwnsItsStreamWithEachToken checks that a stream outlives the token that created it.
func TestClient_OwnsItsStreamWithEachToken(t *testing.T) {
	i := installAPI(t)
	client, other := i.addClient(`["ssf.manage"]`), i.addClient(`["ssf.manage"]`)
	stream := i.must("POST", "/ssf/v1/streams", i.access(client, ""), `{}`)
	id := stream["stream_id"].(string)
	if status, answer := i.raw("GET", "/ssf/v1/streams?stream_id="+id, i.access(client, ""), ""); status != http.StatusOK {
		t.Errorf("the client's next token: answered %d %s", status, answer)
	}
	if status, _ := i.raw("GET", "/ssf/v1/streams?stream_id="+id, i.access(other, ""), ""); status != http.StatusNotFound {
		t.Errorf("another client: answered %d", status)
	}
	assign := "/v1/tenants/acme/streams/" + id + "/assign"
	for body, want := range map[string]int{
		`{}`: 422, `{"clientId":"` + id + `"}`: 422, `{"clientId":"` + other.id + `"}`: 204,
	} {
		if status, answer := i.raw("POST", assign, i.operator, body); status != want {
			t.Errorf("assigning to %s: answered %d %s, want %d", body, status, answer, want)
		}
	}
	if status, _ := i.raw("GET", "/ssf/v1/streams?stream_id="+id, i.access(other, ""), ""); status != http.StatusOK {
		t.Errorf("the client that the stream was assigned to: answered %d", status)
	}
}

// TestClient_RemovalPausesItsStreams checks that the stream of a removed client is paused.
func TestClient_RemovalPausesItsStreams(t *testing.T) {
	i := installAPI(t)
	client := i.addClient(`["ssf.manage"]`)
	i.must("POST", "/ssf/v1/streams", i.access(client, ""), `{}`)
	if status, answer := i.raw("DELETE", "/v1/tenants/acme/clients/"+client.id, i.operator, ""); status != http.StatusNoContent {
		t.Fatalf("answered %d %s", status, answer)
	}
	streams := i.must("GET", "/v1/tenants/acme/streams", i.operator, "")["items"].([]any)
	if stream := streams[0].(map[string]any); stream["status"] != "paused" || stream["reason"] != "the client was removed" {
		t.Errorf("the stream is %v", stream)
	}
}

// TestToken_RevocationPausesItsStreams checks that a stream that pushes to the holder of a revoked token stops.
func TestToken_RevocationPausesItsStreams(t *testing.T) {
	i := installAPI(t)
	issued, secret, err := i.app.Auth().Issue(t.Context(), i.tenant.ID, auth.NewToken{Class: auth.ClassReceiver})
	if err != nil {
		t.Fatal(err)
	}
	i.must("POST", "/ssf/v1/streams", i.token(i.tenant.ID, auth.ClassReceiver), `{}`) // of another token
	revoked := i.must("POST", "/ssf/v1/streams", secret, `{}`)["stream_id"]
	path := "/v1/tenants/acme/tokens/" + issued.ID.String()
	if status, answer := i.raw("DELETE", path, i.operator, ""); status != http.StatusNoContent {
		t.Fatalf("answered %d %s", status, answer)
	}
	for _, item := range i.must("GET", "/v1/tenants/acme/streams", i.operator, "")["items"].([]any) {
		stream, want := item.(map[string]any), "enabled"
		if stream["id"] == revoked {
			want = "paused"
		}
		if stream["status"] != want {
			t.Errorf("the stream is %v, want %s", stream, want)
		}
	}
}

// TestTenant_IPSIELeavesChangesToTheIdP checks the requirement of IPSIE AL SCIM 2.0 section 4.2.
func TestTenant_IPSIELeavesChangesToTheIdP(t *testing.T) {
	i := installAPI(t)
	ada := i.createUser("ada@example.com")
	i.must("PATCH", "/v1/tenants/acme", i.operator, `{"profile":"interop","ipsie":true}`)
	for _, verb := range []string{"end", "restore"} {
		path := "/v1/tenants/acme/principals/" + ada + "/" + verb
		if status, answer := i.raw("POST", path, i.operator, `{"reason":"a test"}`); status != http.StatusForbidden {
			t.Errorf("%s answered %d %s", verb, status, answer)
		}
	}
	token := i.access(i.addClient(`["scim"]`), "scim")
	i.must("PATCH", "/scim/v2/Users/"+ada, token,
		`{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[{"op":"replace","path":"active","value":false}]}`)
	if got := i.must("GET", "/scim/v2/Users/"+ada, token, "")["active"]; got != false {
		t.Errorf("after the IdP's deactivation active is %v", got)
	}
}
