package scim_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/devstack/openid"
	"github.com/leaverhq/leaver/internal/tenant"
	"github.com/leaverhq/leaver/scim/schema"
)

func (p *provider) trust(of tenant.Tenant, i auth.Issuer) {
	p.t.Helper()
	if _, err := p.auth.AddIssuer(p.t.Context(), of.ID, i); err != nil {
		p.t.Fatal(err)
	}
}

func TestAuth_AcceptsJWTOfTrustedIssuer(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	op, err := openid.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(op.Close)
	grant, err := op.Authorize(t.Context(), "provisioner")
	if err != nil {
		t.Fatal(err)
	}
	bearer := []string{"Authorization", "Bearer " + grant.IDToken}
	if a := p.do("GET", "/Users", "", bearer...); a.status != http.StatusUnauthorized {
		t.Errorf("a JWT of an untrusted issuer answered %d, want 401", a.status)
	}
	p.trust(p.tenant, auth.Issuer{Issuer: op.Issuer, Audience: openid.ClientID, JWKSURL: op.Issuer + "/keys", Subjects: []string{"provisioner"}})
	a := p.do("POST", "/Users", `{"userName":"ada"}`, bearer...)
	if a.status != http.StatusCreated {
		t.Fatalf("answered %d: %s", a.status, a.raw)
	}
	var actor string
	if err := p.row(`select actor from changes where resource_id = $1`, a.body["id"]).Scan(&actor); err != nil || !strings.HasSuffix(actor, "/provisioner") {
		t.Errorf("the change was made by %q (%v)", actor, err)
	}
}

// issuer is a JWT issuer with one key.
type issuer struct {
	url     string
	key     *rsa.PrivateKey
	fetched atomic.Int32
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.fetched.Add(1)
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "RS256", Use: "sig"}}})
	}))
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

func (i *issuer) sign(t *testing.T, alg jose.SignatureAlgorithm, key any, id string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", id))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestAuth_RejectsInvalidJWT(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	i := newIssuer(t)
	p.trust(p.tenant, auth.Issuer{Issuer: i.url, Audience: "leaver", JWKSURL: i.url, Subjects: []string{"entra-app"}})
	claims := func(change func(map[string]any)) map[string]any {
		c := map[string]any{"iss": i.url, "aud": "leaver", "appid": "entra-app", "exp": time.Now().Add(time.Hour).Unix()}
		change(c)
		return c
	}
	unchanged := func(map[string]any) {}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, _ := json.Marshal(i.key.Public())
	for name, c := range map[string]struct {
		token  string
		status int
	}{
		"a valid token":        {i.sign(t, jose.RS256, i.key, "k1", claims(unchanged)), 200},
		"another audience":     {i.sign(t, jose.RS256, i.key, "k1", claims(func(c map[string]any) { c["aud"] = "crm" })), 401},
		"another issuer":       {i.sign(t, jose.RS256, i.key, "k1", claims(func(c map[string]any) { c["iss"] = "https://evil.example" })), 401},
		"another subject":      {i.sign(t, jose.RS256, i.key, "k1", claims(func(c map[string]any) { c["appid"] = "someone" })), 401},
		"an expired token":     {i.sign(t, jose.RS256, i.key, "k1", claims(func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() })), 401},
		"no expiry":            {i.sign(t, jose.RS256, i.key, "k1", claims(func(c map[string]any) { delete(c, "exp") })), 401},
		"not valid yet":        {i.sign(t, jose.RS256, i.key, "k1", claims(func(c map[string]any) { c["nbf"] = time.Now().Add(time.Hour).Unix() })), 401},
		"another key":          {i.sign(t, jose.RS256, other, "k1", claims(unchanged)), 401},
		"another algorithm":    {i.sign(t, jose.PS256, i.key, "k1", claims(unchanged)), 401},
		"public key as secret": {i.sign(t, jose.HS256, public, "k1", claims(unchanged)), 401},
		"an unknown key":       {i.sign(t, jose.RS256, i.key, "k2", claims(unchanged)), 401},
		"no signature":         {"eyJhbGciOiJub25lIn0.eyJpc3MiOiJ4In0.", 401},
		"not a JWT":            {"a.b.c", 401},
	} {
		if a := p.do("GET", "/Users", "", "Authorization", "Bearer "+c.token); a.status != c.status {
			t.Errorf("%s: answered %d, want %d", name, a.status, c.status)
		}
	}
	if n := i.fetched.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times, want 1: invalid tokens must not cause requests to the issuer", n)
	}
	// If two tenants trust the issuer, only the path identifies the tenant.
	umbrella, _ := p.newTenant("umbrella", tenant.ProfileDefault)
	p.trust(umbrella, auth.Issuer{Issuer: i.url, Audience: "leaver", JWKSURL: i.url})
	valid := "Bearer " + i.sign(t, jose.RS256, i.key, "k1", claims(unchanged))
	if a := p.do("GET", "/Users", "", "Authorization", valid); a.status != http.StatusUnauthorized {
		t.Errorf("an ambiguous token answered %d, want 401", a.status)
	}
	p.url = p.root + "/t/umbrella/scim/v2"
	if a := p.do("GET", "/ServiceProviderConfig", "", "Authorization", valid); a.status != http.StatusOK || a.body["meta"].(map[string]any)["location"] != p.url+"/ServiceProviderConfig" {
		t.Errorf("on the tenant's path: %d %s", a.status, a.raw)
	}
}

func TestAuth_UnreachableIssuerReturns503(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	i := newIssuer(t)
	p.trust(p.tenant, auth.Issuer{Issuer: i.url, Audience: "leaver", JWKSURL: "http://127.0.0.1:1/keys"})
	token := i.sign(t, jose.RS256, i.key, "k1", map[string]any{"iss": i.url, "aud": "leaver", "sub": "x", "exp": time.Now().Add(time.Hour).Unix()})
	if a := p.do("GET", "/Users", "", "Authorization", "Bearer "+token); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("answered %d %v, want 503 with Retry-After", a.status, a.header)
	}
}

func TestTenantPath_RequiresTokenOfTenant(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	_, other := p.newTenant("umbrella", tenant.ProfileDefault)
	p.url = p.root + "/t/acme/scim/v2"
	id := p.create("/Users", `{"userName":"ada"}`)
	p.wantJSON(p.do("GET", "/Users/"+id, "").body, `{"meta":{"location":"`+p.url+"/Users/"+id+`"}}`)
	if a := p.do("GET", "/Users/"+id, "", "Authorization", "Bearer "+other); a.status != http.StatusUnauthorized {
		t.Errorf("another tenant's token answered %d, want 401", a.status)
	}
	p.url = p.root + "/t/nobody/scim/v2"
	if a := p.do("GET", "/Users", ""); a.status != http.StatusUnauthorized {
		t.Errorf("the path of an unknown tenant answered %d, want 401", a.status)
	}
}

func TestDiscovery_IsPublicIfTenantAllowsIt(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	p.token = ""
	get := func(path string) int {
		resp, err := http.Get(p.root + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	paths := []string{"/ServiceProviderConfig", "/Schemas", "/ResourceTypes", "/ResourceTypes/User"}
	for _, path := range paths {
		if got := get("/t/acme/scim/v2" + path); got != http.StatusUnauthorized {
			t.Errorf("%s is public by default: %d", path, got)
		}
	}
	public := true
	if _, err := p.tenants.Configure(t.Context(), p.tenant.ID, tenant.Settings{PublicDiscovery: &public}); err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if got := get("/t/acme/scim/v2" + path); got != http.StatusOK {
			t.Errorf("%s answered %d, want 200", path, got)
		}
	}
	for _, path := range []string{"/t/acme/scim/v2/Users", "/scim/v2/Schemas", "/t/acme/scim/v2/Nowhere"} {
		if got := get(path); got != http.StatusUnauthorized {
			t.Errorf("%s answered %d, want 401", path, got)
		}
	}
}

func TestRateLimit_IsPerTenant(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	_, other := p.newTenant("umbrella", tenant.ProfileDefault)
	perSecond := 5
	if _, err := p.tenants.Configure(t.Context(), p.tenant.ID, tenant.Settings{RequestsPerSecond: &perSecond}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	counts := map[int]int{}
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			a := p.do("GET", "/Users", "")
			mu.Lock()
			defer mu.Unlock()
			counts[a.status]++
			if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); a.status == http.StatusTooManyRequests && (err != nil || seconds < 1 || a.body["status"] != "429") {
				t.Errorf("Retry-After %q, body %s", a.header.Get("Retry-After"), a.raw)
			}
		})
	}
	all.Wait()
	if counts[200] < 10 || counts[429] < 10 || counts[200]+counts[429] != 40 {
		t.Errorf("statuses %v at a rate of 5 with a burst of 10", counts)
	}
	if a := p.do("GET", "/Users", "", "Authorization", "Bearer "+other); a.status != http.StatusOK {
		t.Errorf("the other tenant got %d", a.status)
	}
}

func TestAuth_OldTokenIsValidUntilRevoked(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	old, err := p.auth.Tokens(t.Context(), p.tenant.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, fresh, err := p.auth.Issue(t.Context(), p.tenant.ID, auth.NewToken{Class: auth.ClassSCIM})
	if err != nil {
		t.Fatal(err)
	}
	status := func(token string) string {
		return fmt.Sprint(p.do("GET", "/Users", "", "Authorization", "Bearer "+token).status)
	}
	if got := status(p.token) + status(fresh); got != "200200" {
		t.Errorf("before the revocation: %s, want 200200", got)
	}
	if err := p.auth.Revoke(t.Context(), p.tenant.ID, old[0].ID); err != nil {
		t.Fatal(err)
	}
	if got := status(p.token) + status(fresh); got != "401200" {
		t.Errorf("after the revocation of the old token: %s, want 401200", got)
	}
}

// TestAuth_IPSIERequiresOAuth checks the requirements of IPSIE AL SCIM 2.0 sections 4.1 and 6.1.2.
func TestAuth_IPSIERequiresOAuth(t *testing.T) {
	p := newProvider(t, tenant.ProfileInterop)
	user := p.create("/Users", `{"userName":"ada"}`)
	on := true
	if _, err := p.tenants.Configure(t.Context(), p.tenant.ID, tenant.Settings{IPSIE: &on, PublicDiscovery: &on}); err != nil {
		t.Fatal(err)
	}
	if a := p.do("GET", "/Users/"+user, ""); a.status != http.StatusUnauthorized {
		t.Errorf("a token that is not of OAuth answered %d", a.status)
	}
	if resp, err := http.Get(p.root + "/t/acme/scim/v2/Schemas"); err != nil {
		t.Error(err)
	} else if resp.Body.Close(); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("discovery without a token answered %d", resp.StatusCode)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k"}}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := p.auth.AddClient(t.Context(), p.tenant.ID,
		auth.Client{Scopes: []auth.Scope{auth.ScopeSCIM, auth.ScopeAuthZEN}, JWKS: keys})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		scopes []auth.Scope
		want   int
	}{
		"only scim": {[]auth.Scope{auth.ScopeSCIM}, http.StatusOK},
		"broader":   {nil, http.StatusUnauthorized},
		"another":   {[]auth.Scope{auth.ScopeAuthZEN}, http.StatusUnauthorized},
	} {
		token := p.access(client, key, c.scopes)
		a := p.do("GET", "/Schemas/"+schema.UserURN, "", "Authorization", "Bearer "+token)
		if a.status != c.want {
			t.Errorf("%s: answered %d, want %d: %s", name, a.status, c.want, a.raw)
		}
		if strings.Contains(string(a.raw), "password") {
			t.Errorf("%s: the schema has a password", name)
		}
	}
}

// access returns an access token of a client with an RSA key.
func (p *provider) access(client auth.Client, key *rsa.PrivateKey, scopes []auth.Scope) string {
	p.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	assertion, err := jwt.Signed(signer).Claims(jwt.Claims{
		Issuer: client.ID.String(), Subject: client.ID.String(), Audience: jwt.Audience{"leaver"}, ID: rand.Text(),
		Expiry: jwt.NewNumericDate(time.Now().Add(time.Minute)),
	}).Serialize()
	if err != nil {
		p.t.Fatal(err)
	}
	_, token, err := p.auth.Exchange(p.t.Context(), p.tenant,
		auth.Assertion{JWT: assertion, Audiences: []string{"leaver"}, Scopes: scopes})
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

func TestTenant_IPSIERequiresTheInteroperabilityProfile(t *testing.T) {
	p := newProvider(t, tenant.ProfileDefault)
	on, slow, interop := true, 24, tenant.ProfileInterop
	for name, settings := range map[string]tenant.Settings{
		"another profile": {IPSIE: &on}, "a low rate limit": {IPSIE: &on, Profile: &interop, RequestsPerSecond: &slow},
	} {
		if _, err := p.tenants.Configure(t.Context(), p.tenant.ID, settings); !errors.Is(err, tenant.ErrIPSIE) {
			t.Errorf("%s: %v, want ErrIPSIE", name, err)
		}
	}
	if _, err := p.tenants.Configure(t.Context(), p.tenant.ID, tenant.Settings{IPSIE: &on, Profile: &interop}); err != nil {
		t.Error(err)
	}
}
