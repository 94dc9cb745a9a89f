package rest_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/activities/connectors/rest"
)

// signed returns the definition keys with the authentication jwt.
func signed(t *testing.T, exchange string) *rest.Definition {
	t.Helper()
	return parse(t, strings.Replace(keys, `auth: {bearer: "{token}"}`,
		`auth: {jwt: {issuer: "ACME.LEAVER", subject: LEAVER, key: "{token}"`+exchange+`}}`, 1))
}

// claimsOf returns the claims of the token of a request, which the key must have signed.
func claimsOf(r *http.Request, key any) (claims jwt.Claims, err error) {
	token, err := jwt.ParseSigned(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return claims, err
	}
	return claims, token.Claims(key, &claims)
}

func TestAssertion_IsSignedAndUsedUntilItExpires(t *testing.T) {
	key := testKey(t)
	private := rsaKey(t, key)
	var tokens []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, err := claimsOf(r, &private.PublicKey)
		if err != nil || claims.Issuer != "ACME.LEAVER" || claims.Subject != "LEAVER" ||
			claims.Expiry.Time().Sub(claims.IssuedAt.Time()) > 10*time.Minute {
			t.Errorf("%+v, %v", claims, err)
		}
		tokens = append(tokens, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	c := connect(t, signed(t, ""), map[string]string{"url": server.URL, "token": secretFile(t, key)})
	for range 2 {
		if _, err := c.Revoke(t.Context(), connectors.Target{Kind: connectors.APIKey, Reference: "p/k"}); err != nil {
			t.Fatal(err)
		}
	}
	if tokens[0] != tokens[1] {
		t.Error("each request has a new token")
	}
}

func TestAssertion_IsExchangedForAnAccessToken(t *testing.T) {
	key := testKey(t)
	private := rsaKey(t, key)
	status, body := http.StatusCreated, `{"token":"t1","expires_at":"2100-01-02T03:04:05Z"}`
	exchanges := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/exchange":
			if _, err := claimsOf(r, &private.PublicKey); err != nil || r.Method != http.MethodPost {
				t.Error(r.Method, err)
			}
			exchanges++
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, body)
		case r.Header.Get("Authorization") == "Bearer t1":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(server.Close)
	end := func() error {
		c := connect(t, signed(t, `, exchange: "{url}/exchange"`), map[string]string{"url": server.URL, "token": secretFile(t, key)})
		var err error
		for range 2 {
			_, err = c.Revoke(t.Context(), connectors.Target{Kind: connectors.APIKey, Reference: "p/k"})
		}
		return err
	}
	if err := end(); err != nil || exchanges != 1 {
		t.Errorf("%v after %d exchanges, want 1", err, exchanges)
	}
	for name, c := range map[string]struct {
		status    int
		body      string
		permanent bool
	}{
		"an app that was deleted": {401, `{"message":"A JSON web token could not be decoded"}`, true},
		"no installation":         {404, `{"message":"Not Found"}`, true},
		"an outage":               {503, ``, false},
		"no token":                {201, `{}`, false},
		"HTML":                    {200, `<html>` + contract.Canary, false},
		"a token that is not known everywhere yet": {201, `{"token":"t2","expires_at":"2100-01-02T03:04:05Z"}`, false},
	} {
		status, body = c.status, c.body
		err := end()
		if err == nil || connectors.IsPermanent(err) != c.permanent || strings.Contains(err.Error(), contract.Canary) {
			t.Errorf("%s: %v, want permanent %t", name, err, c.permanent)
		}
	}
}

// TestJWTBearer_NamesItsAudience signs for the token endpoint, or for the authorization server that the definition names.
func TestJWTBearer_NamesItsAudience(t *testing.T) {
	key := testKey(t)
	private := rsaKey(t, key)
	var audience []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/token" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		token, err := jwt.ParseSigned(r.FormValue("assertion"), []jose.SignatureAlgorithm{jose.RS256})
		var claims jwt.Claims
		if err == nil {
			err = token.Claims(&private.PublicKey, &claims)
		}
		if err != nil {
			t.Error(err)
		}
		audience = claims.Audience
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"access_token":"t1","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(server.Close)
	for member, want := range map[string]string{
		"": server.URL + "/token", `, audience: "https://login.salesforce.com"`: "https://login.salesforce.com",
	} {
		d := parse(t, strings.Replace(keys, `auth: {bearer: "{token}"}`,
			`auth: {jwt_bearer: {token_url: "{url}/token", issuer: client, subject: leaver@acme.com, key: "{token}"`+member+`}}`, 1))
		c := connect(t, d, map[string]string{"url": server.URL, "token": secretFile(t, key)})
		_, err := c.Revoke(t.Context(), connectors.Target{Kind: connectors.APIKey, Reference: "p/k"})
		if err != nil || len(audience) != 1 || audience[0] != want {
			t.Errorf("%q: the audience is %v, want %s (%v)", member, audience, want, err)
		}
	}
}

func TestAssertion_UnreachableExchangeIsRetryable(t *testing.T) {
	c := connect(t, signed(t, `, exchange: "{url}/exchange"`),
		map[string]string{"url": "http://" + contract.Closed(t), "token": secretFile(t, testKey(t))})
	_, err := c.Revoke(t.Context(), connectors.Target{Kind: connectors.APIKey, Reference: "p/k"})
	if err == nil || connectors.IsPermanent(err) {
		t.Errorf("%v, want a retryable error", err)
	}
}
