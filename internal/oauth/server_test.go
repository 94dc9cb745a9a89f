package oauth_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/oauth"
	"github.com/leaverhq/leaver/internal/tenant"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// provider is the token endpoint of two tenants, of which the client is one's.
type provider struct {
	t      *testing.T
	url    string
	auth   *auth.Store
	of     tenant.Tenant
	client auth.Client
	key    *ecdsa.PrivateKey
}

func newProvider(t *testing.T, scopes ...auth.Scope) *provider {
	t.Helper()
	db, _ := stacktest.Open(t)
	tenants := tenant.NewStore(db)
	p := &provider{t: t, auth: auth.NewStore(db, tenants)}
	var err error
	for _, name := range []string{"umbrella", "acme"} {
		if p.of, err = tenants.Create(t.Context(), name, tenant.ProfileDefault); err != nil {
			t.Fatal(err)
		}
	}
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	p.client, err = p.auth.AddClient(t.Context(), p.of.ID, auth.Client{Scopes: scopes, JWKS: keySet(t, &p.key.PublicKey)})
	if err != nil {
		t.Fatal(err)
	}
	server := &oauth.Server{Auth: p.auth, Tenants: tenants, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	r := chi.NewRouter()
	r.Post(oauth.TokenPath, server.Token)
	r.Get(oauth.MetadataPath, server.Metadata)
	running := httptest.NewServer(r)
	t.Cleanup(running.Close)
	p.url = running.URL
	return p
}

func keySet(t *testing.T, key any) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: "k1", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// assertion returns a valid assertion of the client with some claims changed; nil removes one.
func (p *provider) assertion(changes map[string]any) string {
	p.t.Helper()
	claims := map[string]any{
		"iss": p.client.ID.String(), "sub": p.client.ID.String(), "aud": p.url + "/t/acme",
		"jti": uuid.NewString(), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}
	typ := "JWT"
	for name, value := range changes {
		if name == "typ" {
			typ = value.(string)
			continue
		}
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", "k1")
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p.key}, options)
	if err != nil {
		p.t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// form returns a valid request with an assertion.
func form(assertion string) url.Values {
	return url.Values{
		"grant_type": {"client_credentials"}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
}

func (p *provider) request(name string, form url.Values) (int, map[string]any) {
	p.t.Helper()
	resp, err := http.PostForm(p.url+"/t/"+name+"/oauth2/token", form)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var body map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		p.t.Fatal(err)
	}
	if resp.Header.Get("Cache-Control") != "no-store" {
		p.t.Errorf("Cache-Control is %q", resp.Header.Get("Cache-Control"))
	}
	if resp.StatusCode == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") == "" { // RFC 9110 section 15.5.2
		p.t.Error("a 401 has no challenge")
	}
	return resp.StatusCode, body
}

// TestToken_ServesAnOAuthClientFromItsMetadata uses golang.org/x/oauth2, from the metadata to a token that
// authenticates.
func TestToken_ServesAnOAuthClientFromItsMetadata(t *testing.T) {
	p := newProvider(t, auth.ScopeSCIM, auth.ScopeSSFRead)
	resp, err := http.Get(p.url + "/.well-known/oauth-authorization-server/t/acme")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var metadata struct {
		Issuer   string   `json:"issuer"`
		Endpoint string   `json:"token_endpoint"`
		Methods  []string `json:"token_endpoint_auth_methods_supported"`
		Types    []string `json:"response_types_supported"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&metadata); err != nil || metadata.Types == nil ||
		len(metadata.Methods) != 1 || metadata.Methods[0] != "private_key_jwt" {
		t.Fatalf("the metadata are %+v, %v", metadata, err)
	}
	params := form(p.assertion(map[string]any{"aud": metadata.Issuer}))
	params.Del("grant_type") // the library adds it
	config := clientcredentials.Config{
		ClientID: p.client.ID.String(), TokenURL: metadata.Endpoint, Scopes: []string{"scim"},
		AuthStyle: oauth2.AuthStyleInParams, EndpointParams: params,
	}
	token, err := config.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(token.Expiry); token.TokenType != "Bearer" || left > time.Hour || left < 50*time.Minute {
		t.Errorf("the token is a %s for %v", token.TokenType, left)
	}
	caller, err := p.auth.Authenticate(t.Context(), token.AccessToken, auth.ClassSCIM)
	if err != nil || caller.Tenant.Name != "acme" || caller.Actor() != "client/"+p.client.ID.String() {
		t.Errorf("the caller is %+v, %v", caller, err)
	}
	if _, err := p.auth.Authenticate(t.Context(), token.AccessToken, auth.ClassReceiver); err == nil {
		t.Error("a token for scim is accepted as one for streams, which it did not request")
	}
}

func TestToken_RefusesInvalidRequests(t *testing.T) {
	p := newProvider(t, auth.ScopeSCIM)
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	valid, own := p.assertion(nil), p.key
	p.key = stranger
	foreign := p.assertion(nil)
	p.key = own
	with := func(name, value string) url.Values {
		f := form(p.assertion(nil))
		f.Set(name, value)
		return f
	}
	header, payload, _ := strings.Cut(valid, ".")
	unsigned := strings.Split(payload, ".")[0]
	for name, c := range map[string]struct {
		tenant string
		form   url.Values
		status int
		code   string
	}{
		"no grant type":         {"acme", with("grant_type", ""), 400, "invalid_request"},
		"another grant type":    {"acme", with("grant_type", "password"), 400, "unsupported_grant_type"},
		"a repeated parameter":  {"acme", url.Values{"grant_type": {"client_credentials", "client_credentials"}}, 400, "invalid_request"},
		"no assertion":          {"acme", with("client_assertion", ""), 401, "invalid_client"},
		"another kind":          {"acme", with("client_assertion_type", "urn:x"), 401, "invalid_client"},
		"a secret":              {"acme", with("client_secret", "x"), 401, "invalid_client"},
		"another client_id":     {"acme", with("client_id", uuid.NewString()), 401, "invalid_client"},
		"another tenant":        {"umbrella", form(p.assertion(nil)), 401, "invalid_client"},
		"no such tenant":        {"nobody", form(p.assertion(nil)), 401, "invalid_client"},
		"a scope not granted":   {"acme", with("scope", "scim ssf.manage"), 400, "invalid_scope"},
		"an unknown scope":      {"acme", with("scope", "root"), 400, "invalid_scope"},
		"a stranger's key":      {"acme", form(foreign), 401, "invalid_client"},
		"alg none":              {"acme", form("eyJhbGciOiJub25lIn0." + unsigned + "."), 401, "invalid_client"},
		"a cut signature":       {"acme", form(header + "." + unsigned + "."), 401, "invalid_client"},
		"not a JWT":             {"acme", form("x"), 401, "invalid_client"},
		"another audience":      {"acme", form(p.assertion(map[string]any{"aud": "https://other.example.com"})), 401, "invalid_client"},
		"two audiences":         {"acme", form(p.assertion(map[string]any{"aud": []string{p.url + "/t/acme", "https://other.example.com"}})), 401, "invalid_client"},
		"the other's audience":  {"acme", form(p.assertion(map[string]any{"aud": p.url + "/t/umbrella"})), 401, "invalid_client"},
		"no jti":                {"acme", form(p.assertion(map[string]any{"jti": nil})), 401, "invalid_client"},
		"a jti with a control":  {"acme", form(p.assertion(map[string]any{"jti": "a\u0000b"})), 401, "invalid_client"},
		"no expiry":             {"acme", form(p.assertion(map[string]any{"exp": nil})), 401, "invalid_client"},
		"expired":               {"acme", form(p.assertion(map[string]any{"exp": time.Now().Add(-2 * time.Minute).Unix()})), 401, "invalid_client"},
		"valid for a day":       {"acme", form(p.assertion(map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()})), 401, "invalid_client"},
		"not valid yet":         {"acme", form(p.assertion(map[string]any{"nbf": time.Now().Add(5 * time.Minute).Unix()})), 401, "invalid_client"},
		"another subject":       {"acme", form(p.assertion(map[string]any{"sub": "x"})), 401, "invalid_client"},
		"a security event":      {"acme", form(p.assertion(map[string]any{"typ": "secevent+jwt"})), 401, "invalid_client"},
		"an access token":       {"acme", form(p.assertion(map[string]any{"typ": "at+jwt"})), 401, "invalid_client"},
		"of no client":          {"acme", form(p.assertion(map[string]any{"iss": "x", "sub": "x"})), 401, "invalid_client"},
		"of an unknown client":  {"acme", form(p.assertion(map[string]any{"iss": uuid.NewString()})), 401, "invalid_client"},
		"longer than is read":   {"acme", with("scope", strings.Repeat("x", 40<<10)), 400, "invalid_request"},
		"a client's other type": {"acme", form(p.assertion(map[string]any{"typ": "client-authentication+jwt"})), 200, ""},
		"the endpoint as aud":   {"acme", form(p.assertion(map[string]any{"aud": p.url + "/t/acme/oauth2/token"})), 200, ""},
	} {
		status, body := p.request(c.tenant, c.form)
		if code, _ := body["error"].(string); status != c.status || code != c.code {
			t.Errorf("%s: answered %d %v, want %d %s", name, status, body, c.status, c.code)
		}
	}
}

func TestToken_AssertionIsAcceptedOnce(t *testing.T) {
	p := newProvider(t, auth.ScopeSCIM)
	request := form(p.assertion(nil))
	for n, want := range []int{200, 401} {
		if status, body := p.request("acme", request); status != want {
			t.Errorf("request %d answered %d %v, want %d", n, status, body, want)
		}
	}
}

func TestToken_EndsWithItsClient(t *testing.T) {
	p := newProvider(t, auth.ScopeSCIM)
	_, body := p.request("acme", form(p.assertion(nil)))
	secret, _ := body["access_token"].(string)
	if _, err := p.auth.Authenticate(t.Context(), secret, auth.ClassSCIM); err != nil {
		t.Fatal(err)
	}
	if err := p.auth.RemoveClient(t.Context(), p.of.ID, p.client.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := p.auth.Authenticate(t.Context(), secret, auth.ClassSCIM); err == nil {
		t.Error("the token of a removed client is accepted")
	}
	if status, _ := p.request("acme", form(p.assertion(nil))); status != http.StatusUnauthorized {
		t.Errorf("a removed client's request answered %d", status)
	}
}

// TestToken_LimitsTheRequestsOfAClient sends more requests than a client may in a minute.
func TestToken_LimitsTheRequestsOfAClient(t *testing.T) {
	p := newProvider(t, auth.ScopeSCIM)
	last := 0
	for range 61 {
		last, _ = p.request("acme", form(p.assertion(nil)))
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("request 61 of a minute answered %d", last)
	}
}

// TestToken_NeedsAPublicURL sends an assertion for another host with that host's name, as an attacker with a captured assertion would
// from a client that was led to that host.
func TestToken_NeedsAPublicURL(t *testing.T) {
	p := newProvider(t, auth.ScopeSCIM)
	body := form(p.assertion(map[string]any{"aud": "http://evil.example.com/t/acme"})).Encode()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/t/acme/oauth2/token", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example.com"
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("answered %d", resp.StatusCode)
	}
}

func TestAddClient_RejectsInvalidFields(t *testing.T) {
	p := newProvider(t, auth.ScopeSCIM)
	public := keySet(t, &p.key.PublicKey)
	for name, client := range map[string]auth.Client{
		"no scope":           {JWKS: public},
		"an unknown scope":   {JWKS: public, Scopes: []auth.Scope{"root"}},
		"no keys":            {Scopes: []auth.Scope{auth.ScopeSCIM}},
		"an empty key set":   {Scopes: []auth.Scope{auth.ScopeSCIM}, JWKS: json.RawMessage(`{"keys":[]}`)},
		"a private key":      {Scopes: []auth.Scope{auth.ScopeSCIM}, JWKS: keySet(t, p.key)},
		"a symmetric key":    {Scopes: []auth.Scope{auth.ScopeSCIM}, JWKS: keySet(t, []byte("0123456789abcdef"))},
		"keys in two places": {Scopes: []auth.Scope{auth.ScopeSCIM}, JWKS: public, JWKSURL: "https://id.example.com/keys"},
		"keys over http":     {Scopes: []auth.Scope{auth.ScopeSCIM}, JWKSURL: "http://id.example.com/keys"},
		"an issuer for SCIM": {Scopes: []auth.Scope{auth.ScopeSCIM}, JWKS: public, Issuer: "https://id.example.com"},
	} {
		if _, err := p.auth.AddClient(t.Context(), p.of.ID, client); err == nil {
			t.Errorf("%s: the client was added", name)
		}
	}
}
