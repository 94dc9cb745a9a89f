package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/ssf"
)

// idp is an identity provider that signs tokens and serves its keys.
type idp struct {
	url string
	key *rsa.PrivateKey
}

func newIDP(t testing.TB) *idp {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &idp{key: key}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		keys := []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "RS256", Use: "sig"}}
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: keys})
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// sign returns a token of the type kind with the claims.
func (p *idp) sign(t testing.TB, kind string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: p.key},
		(&jose.SignerOptions{}).WithType(jose.ContentType(kind)).WithHeader("kid", "1"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// revocation returns the claims of a valid token for global token revocation; change, unless it is
// nil, may modify them.
func (p *idp) revocation(change func(map[string]any)) map[string]any {
	now := time.Now()
	claims := map[string]any{
		"iss": p.url, "sub": "idp", "aud": "https://leaver.example.com/global-token-revocation", "jti": uuid.NewString(),
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	if change != nil {
		change(claims)
	}
	return claims
}

func (p *idp) event(name string, subject any, change func(map[string]any)) map[string]any {
	claims := map[string]any{
		"iss": p.url, "aud": "https://leaver.example.com", "jti": uuid.NewString(), "iat": time.Now().Unix(),
		"sub_id": subject, "events": map[string]any{name: map[string]any{}},
	}
	if change != nil {
		change(claims)
	}
	return claims
}

func (i *installation) trusts(p *idp, audience, use string) {
	i.t.Helper()
	i.must("POST", "/v1/tenants/acme/issuers", i.operator, fmt.Sprintf(
		`{"issuer":%q,"audience":%q,"jwksUrl":%q,"uses":[%q],"subjects":%s}`, p.url, audience, p.url, use,
		map[string]string{"revocation": `["idp"]`}[use]+map[string]string{"events": `[]`}[use]))
}

func (i *installation) push(path, set string) (int, string) {
	i.t.Helper()
	req, err := http.NewRequestWithContext(i.t.Context(), http.MethodPost, i.url+path, strings.NewReader(set))
	if err != nil {
		i.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/secevent+jwt")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		i.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestGlobalTokenRevocation_EndsSubject(t *testing.T) {
	p, platform := newIDP(t), newPlatform(t)
	i := install(t, withConnectors(platform.connector()))
	i.trusts(p, "https://leaver.example.com/global-token-revocation", "revocation")
	for name, subject := range map[string]func(id string) string{
		"by e-mail":     func(string) string { return `{"format":"email","email":"ADA@example.com"}` },
		"by externalId": func(string) string { return fmt.Sprintf(`{"format":"iss_sub","iss":%q,"sub":"00u-ada"}`, p.url) },
		"by leaver's id": func(id string) string {
			return fmt.Sprintf(`{"format":"iss_sub","iss":"%s/t/acme","sub":%q}`, i.url, id)
		},
		"by SCIM path": func(id string) string { return fmt.Sprintf(`{"format":"scim","uri":"/Users/%s"}`, id) },
		"by account":   func(string) string { return `{"format":"account","uri":"acct:ada@example.com"}` },
		"by the second alias": func(id string) string {
			return fmt.Sprintf(
				`{"format":"aliases","identifiers":[{"format":"did","url":"did:x"},{"format":"opaque","id":%q}]}`, id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			i.t = t
			ada := i.must("POST", "/scim/v2/Users", i.scim,
				`{"userName":"ada@example.com","externalId":"00u-ada","active":true}`)["id"].(string)
			i.hold(platform, ada, "", "key-"+ada)
			token := p.sign(t, "JWT", p.revocation(nil))
			if status, answer := i.call("POST", "/global-token-revocation", token,
				fmt.Sprintf(`{"sub_id":%s}`, subject(ada))); status != http.StatusNoContent {
				t.Fatalf("answered %d %v", status, answer)
			}
			if c := i.closed(ada); c.Trigger != "global-token-revocation" || c.Outcome != "completed" ||
				platform.isAlive("key-"+ada) {
				t.Errorf("cascade %+v, want completed", c)
			}
			i.raw("DELETE", "/scim/v2/Users/"+ada, i.scim, "")
		})
	}
	i.t = t
}

// TestGlobalTokenRevocation_RejectsInvalidRequests has one invalid request a row.
func TestGlobalTokenRevocation_RejectsInvalidRequests(t *testing.T) {
	p, stranger := newIDP(t), newIDP(t)
	i := installAPI(t)
	i.trusts(p, "https://leaver.example.com/global-token-revocation", "revocation")
	ada := i.createUser("ada@example.com")
	for _, name := range []string{"x@example.com", "y@example.com"} {
		i.must("POST", "/scim/v2/Users", i.scim, fmt.Sprintf(`{"userName":%q,"emails":[{"value":"both@example.com"}]}`, name))
	}
	good := fmt.Sprintf(`{"sub_id":{"format":"opaque","id":%q}}`, ada)
	used := p.sign(t, "JWT", p.revocation(nil))
	if status, _ := i.call("POST", "/global-token-revocation", used,
		`{"sub_id":{"format":"email","email":"x@example.com"}}`); status != http.StatusNoContent {
		t.Fatalf("the first use answered %d", status)
	}
	forged := p.revocation(nil)
	forged["iss"] = p.url
	for name, row := range map[string]struct {
		token, body string
		want        int
	}{
		"no token":                  {"", good, 401},
		"a SCIM token":              {i.scim, good, 401},
		"used before":               {used, good, 401},
		"signed by another issuer":  {stranger.sign(t, "JWT", forged), good, 401},
		"for another audience":      {p.sign(t, "JWT", p.revocation(func(c map[string]any) { c["aud"] = "https://elsewhere" })), good, 401},
		"expired":                   {p.sign(t, "JWT", p.revocation(func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() })), good, 401},
		"expires too late":          {p.sign(t, "JWT", p.revocation(func(c map[string]any) { c["exp"] = time.Now().Add(24 * time.Hour).Unix() })), good, 401},
		"without an id":             {p.sign(t, "JWT", p.revocation(func(c map[string]any) { delete(c, "jti") })), good, 401},
		"a security event":          {p.sign(t, "secevent+jwt", p.revocation(nil)), good, 401},
		"an unknown user":           {p.sign(t, "JWT", p.revocation(nil)), `{"sub_id":{"format":"email","email":"nobody@example.com"}}`, 404},
		"an ambiguous e-mail":       {p.sign(t, "JWT", p.revocation(nil)), `{"sub_id":{"format":"email","email":"both@example.com"}}`, 422},
		"an unknown format":         {p.sign(t, "JWT", p.revocation(nil)), `{"sub_id":{"format":"phone_number","phone_number":"+12065550100"}}`, 400},
		"no subject":                {p.sign(t, "JWT", p.revocation(nil)), `{}`, 400},
		"a null byte":               {p.sign(t, "JWT", p.revocation(nil)), `{"sub_id":{"format":"email","email":"a\u0000b"}}`, 400},
		"another tenant's, by path": {"", good, 401},
	} {
		if status, answer := i.call("POST", "/global-token-revocation", row.token, row.body); status != row.want {
			t.Errorf("%s answered %d %v, want %d", name, status, answer, row.want)
		}
	}
	i.newTenant("umbrella")
	if status, _ := i.call("POST", "/t/umbrella/global-token-revocation",
		p.sign(t, "JWT", p.revocation(nil)), good); status != http.StatusUnauthorized {
		t.Errorf("another tenant's path answered %d, want 401", status)
	}
	// A token for global token revocation is not accepted for SCIM.
	if status, _ := i.call("GET", "/scim/v2/Users",
		p.sign(t, "JWT", p.revocation(nil)), ""); status != http.StatusUnauthorized {
		t.Errorf("SCIM answered %d to a token for revocation, want 401", status)
	}
	if n := len(i.cascades(ada)); n != 0 {
		t.Errorf("%d cascades of Ada's", n)
	}
}

func TestSecurityEvent_EndsSubjectOnce(t *testing.T) {
	p := newIDP(t)
	i := install(t)
	i.trusts(p, "https://leaver.example.com", "events")
	for _, name := range []string{ssf.SessionRevoked, ssf.AccountDisabled, ssf.AccountPurged, ssf.CredentialCompromise} {
		ada := i.createUser("ada-" + uuid.NewString())
		set := p.sign(t, "secevent+jwt",
			p.event(name, map[string]any{"format": "complex", "user": map[string]string{"format": "opaque", "id": ada}}, nil))
		if status, body := i.push("/t/acme/events", set); status != http.StatusAccepted || body != "" {
			t.Fatalf("%s answered %d %s", name, status, body)
		}
		if c := i.closed(ada); c.Trigger != "security-event" {
			t.Errorf("%s: %+v", name, c)
		}
		// The user is reactivated, and the same token is delivered again.
		i.patch("/Users/"+ada, `{"op":"replace","path":"active","value":true}`)
		if status, _ := i.push("/t/acme/events", set); status != http.StatusAccepted {
			t.Errorf("the replayed %s answered %d, want 202", name, status)
		}
		if n := len(i.cascades(ada)); n != 1 {
			t.Errorf("after the replayed %s there are %d cascades, want 1", name, n)
		}
	}
	bob := i.createUser("bob")
	for name, claims := range map[string]map[string]any{
		"an event that ends no user": p.event(ssf.AccountEnabled, map[string]string{"format": "opaque", "id": bob}, nil),
		"an event of an unknown user": p.event(ssf.AccountDisabled,
			map[string]string{"format": "email", "email": "nobody@example.com"}, nil),
	} {
		if status, _ := i.push("/t/acme/events", p.sign(t, "secevent+jwt", claims)); status != http.StatusAccepted {
			t.Errorf("%s answered %d", name, status)
		}
	}
	if n := len(i.cascades(bob)); n != 0 {
		t.Errorf("%d cascades of Bob's", n)
	}
}

func TestSecurityEvent_RejectsInvalidTokens(t *testing.T) {
	p, stranger := newIDP(t), newIDP(t)
	i := installAPI(t)
	i.trusts(p, "https://leaver.example.com", "events")
	i.newTenant("umbrella")
	ada := i.createUser("ada@example.com")
	subject := map[string]string{"format": "opaque", "id": ada}
	event := func(change func(map[string]any)) map[string]any { return p.event(ssf.AccountDisabled, subject, change) }
	unsigned, _, _ := strings.Cut(p.sign(t, "secevent+jwt", event(nil)), ".")
	for name, row := range map[string]struct{ path, set, code string }{
		"nothing": {"/t/acme/events", "", "authentication_failed"},
		"unsigned": {
			"/t/acme/events", strings.Replace(unsigned, unsigned, "eyJhbGciOiJub25lIiwidHlwIjoic2VjZXZlbnQrand0In0", 1) + ".e30.",
			"authentication_failed",
		},
		"signed by another's key": {"/t/acme/events", stranger.sign(t, "secevent+jwt", event(nil)), "authentication_failed"},
		"an ordinary JWT":         {"/t/acme/events", p.sign(t, "JWT", event(nil)), "authentication_failed"},
		"with an exp": {
			"/t/acme/events", p.sign(t, "secevent+jwt", event(func(c map[string]any) { c["exp"] = time.Now().Add(time.Hour).Unix() })),
			"authentication_failed",
		},
		"for another audience": {"/t/acme/events", p.sign(t, "secevent+jwt", event(func(c map[string]any) { c["aud"] = "x" })), "authentication_failed"},
		"of long ago":          {"/t/acme/events", p.sign(t, "secevent+jwt", event(func(c map[string]any) { c["iat"] = 1 })), "authentication_failed"},
		"of the future": {
			"/t/acme/events", p.sign(t, "secevent+jwt", event(func(c map[string]any) { c["iat"] = time.Now().Add(time.Hour).Unix() })),
			"authentication_failed",
		},
		"without an id":     {"/t/acme/events", p.sign(t, "secevent+jwt", event(func(c map[string]any) { delete(c, "jti") })), "authentication_failed"},
		"another tenant's":  {"/t/umbrella/events", p.sign(t, "secevent+jwt", event(nil)), "authentication_failed"},
		"without a subject": {"/t/acme/events", p.sign(t, "secevent+jwt", event(func(c map[string]any) { delete(c, "sub_id") })), "invalid_request"},
	} {
		status, body := i.push(row.path, row.set)
		var answer struct{ Err string }
		if status != http.StatusBadRequest || json.Unmarshal([]byte(body), &answer) != nil || answer.Err != row.code {
			t.Errorf("%s answered %d %s, want 400 %s", name, status, body, row.code)
		}
	}
	if n := len(i.cascades(ada)); n != 0 {
		t.Errorf("%d cascades of Ada's", n)
	}
}

func TestPrincipal_RestoredByOperator(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	i.apply(engineering)
	ada := i.createUser("ada@example.com")
	i.createGroup("engineering-prod", ada)
	i.becomes(ada, "role:developer", "scope:deploy", "team:Engineering")
	key := i.hold(p, ada, "", "key")
	const path = "/v1/tenants/acme/principals/"
	if status, _ := i.call("POST", path+ada+"/restore", i.operator, `{"reason":"x"}`); status != http.StatusConflict {
		t.Errorf("restoring an active user answered %d, want 409", status)
	}
	i.must("POST", path+ada+"/end", i.operator, `{"reason":"laptop stolen"}`)
	i.becomesState(key, "verified")
	i.becomes(ada)
	plan := i.must("GET", path+ada+"/restoration", i.operator, "")
	if got := fmt.Sprint(plan["entitlements"]); got != "[role:developer scope:deploy team:Engineering]" {
		t.Errorf("the plan: %v", plan)
	}
	if status, _ := i.call("POST", path+ada+"/restore", i.operator, `{}`); status != http.StatusUnprocessableEntity {
		t.Errorf("a restore without a reason answered %d, want 422", status)
	}
	i.must("POST", path+ada+"/restore", i.operator, `{"reason":"found again"}`)
	i.becomes(ada, "role:developer", "scope:deploy", "team:Engineering")
	if got := i.ask(entityOf("user", ada), "deploy", entityOf("service", "api")); got != "allow" {
		t.Errorf("the decision is %s, want allow", got)
	}
	if i.state(key) != "verified" || p.isAlive("key") {
		t.Error("a credential was restored")
	}
}

func TestAgent_EndsAfterValidUntil(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	agent := i.createAgent("temp", ada)
	i.hold(p, agent, agent, "key")
	until := time.Now().Add(400 * time.Millisecond)
	i.patch("/Agents/"+agent, fmt.Sprintf(
		`{"op":"add","path":"urn:leaver:params:scim:schemas:extension:validity:1.0:Agent:validUntil","value":%q}`,
		until.UTC().Format(time.RFC3339Nano)))
	stacktest.Eventually(t, 10*time.Second, "the decision", func() bool {
		return i.ask(entityOf("agent", agent), "read", entityOf("connector", "platform")) == "agent_expired"
	})
	i.runsUntilTheEnd(i.app.Lifecycle.Expire)
	if c := i.closed(agent); c.Trigger != "validity-expired" || c.Outcome != "completed" || p.isAlive("key") {
		t.Errorf("the cascade: %+v", c)
	}
}
