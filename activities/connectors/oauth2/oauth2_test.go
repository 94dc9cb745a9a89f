package oauth2

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/activities/connectors/contract"
	"github.com/leaverhq/leaver/internal/devstack/openid"
)

func connect(t *testing.T, c Config) *Connector {
	t.Helper()
	connector, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(connector.Close)
	return connector
}

func settings(t *testing.T, p *openid.Provider) Config {
	t.Helper()
	t.Setenv("TEST_CLIENT_SECRET", p.ClientSecret)
	return Config{
		RevocationURL: p.RevocationURL(), IntrospectionURL: p.IntrospectionURL(), TokenURL: p.TokenURL(),
		ClientID: openid.ClientID, ClientSecret: "env:TEST_CLIENT_SECRET",
	}
}

func provider(t *testing.T) *openid.Provider {
	t.Helper()
	p, err := openid.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func issue(t *testing.T, p *openid.Provider) connectors.Target {
	t.Helper()
	grant, err := p.Authorize(t.Context(), "ada")
	if err != nil {
		t.Fatal(err)
	}
	return connectors.Target{
		Item:   uuid.New(),
		Kind:   connectors.RefreshToken,
		Secret: connectors.Secret(grant.RefreshToken),
	}
}

func TestOAuth2_Contract(t *testing.T) {
	for _, auth := range []string{"basic", "post"} {
		t.Run(auth, func(t *testing.T) {
			p := provider(t)
			c := settings(t, p)
			c.Auth = auth
			if auth == "post" {
				c.IntrospectionURL = "" // zitadel's introspection only supports basic
			}
			down, hanging := c, c
			down.RevocationURL = "http://" + contract.Closed(t)
			hanging.RevocationURL = "http://" + contract.Silent(t)
			contract.Run(t, contract.Suite{
				Connector: connect(t, c), Verifies: auth == "basic",
				Issue: func(t *testing.T) connectors.Target { return issue(t, p) },
				Works: func(t *testing.T, target connectors.Target) bool {
					active, err := p.Active(t.Context(), target.Secret.Reveal())
					if err != nil {
						t.Fatal(err)
					}
					return active
				},
				Down: connect(t, down), Hanging: connect(t, hanging),
			})
		})
	}
}

func TestRevoke_ClassifiesAnswers(t *testing.T) {
	target := connectors.Target{Kind: connectors.RefreshToken, Secret: contract.Canary}
	contract.RunAnswers(t, append(contract.Common(), []contract.Answer{
		{Name: "200", Status: 200, Outcome: connectors.Done},
		{Name: "unknown tokens get 200 too", Status: 200, Body: "{}", Outcome: connectors.Done},
		{Name: "401 invalid_client", Status: 401, Body: `{"error":"invalid_client"}`, Permanent: true},
		{Name: "400 not the owner", Status: 400, Body: `{"error":"invalid_request"}`, Permanent: true},
		{
			Name: "400 a token that cannot be revoked and whose expiry is unknown", Status: 400,
			Body: `{"error":"unsupported_token_type"}`, Permanent: true,
		},
	}...), target, func(t *testing.T, url string) connectors.Connector {
		return connect(t, Config{RevocationURL: url, ClientID: "c"})
	})
	revoke := func(ctx context.Context, url string) error {
		_, err := connect(t, Config{RevocationURL: url, ClientID: "c"}).Revoke(ctx, target)
		return err
	}
	contract.RunFaults(
		t, target, func(ctx context.Context, address string) error { return revoke(ctx, "http://"+address) },
	)
	contract.RedirectsLeadNowhere(t, func(url string) error { return revoke(t.Context(), url) })
}

// grants returns a connector for grants, and a function that issues one.
func grants(t *testing.T, p *openid.Provider) (*Connector, func(t *testing.T) connectors.Target) {
	t.Helper()
	return connect(t, Config{AdminURL: p.AdminURL()}), func(t *testing.T) connectors.Target {
		subject := uuid.NewString()
		grant, err := p.Authorize(t.Context(), subject)
		if err != nil {
			t.Fatal(err)
		}
		return connectors.Target{
			Item: uuid.New(), Kind: connectors.Grant, Reference: GrantReference(subject, openid.ClientID),
			NewSecret: connectors.Secret(grant.RefreshToken),
		}
	}
}

func TestGrants_Contract(t *testing.T) {
	p := provider(t)
	connector, issue := grants(t, p)
	contract.Run(t, contract.Suite{
		Connector: connector, Verifies: true, Issue: issue,
		// A revoked grant revokes its tokens, too.
		Works: func(t *testing.T, target connectors.Target) bool {
			active, err := p.Active(t.Context(), target.NewSecret.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			return active
		},
		Down:    connect(t, Config{AdminURL: "http://" + contract.Closed(t)}),
		Hanging: connect(t, Config{AdminURL: "http://" + contract.Silent(t)}),
	})
}

func TestGrants_ClassifyAnswers(t *testing.T) {
	target := connectors.Target{Kind: connectors.Grant, Reference: "ada/app", Secret: contract.Canary}
	contract.RunAnswers(t, append(contract.Common(), []contract.Answer{
		{Name: "204", Status: 204, Outcome: connectors.Done},
		{Name: "404 with an error code", Status: 404, Body: `{"error":"not_found"}`, Outcome: connectors.Gone},
		{Name: "200 instead of 204", Status: 200, Permanent: true},
	}...), target, func(t *testing.T, url string) connectors.Connector { return connect(t, Config{AdminURL: url}) })
	if _, err := connect(t, Config{AdminURL: "http://localhost"}).Revoke(t.Context(), connectors.Target{
		Kind: connectors.Grant, Reference: "ada",
	}); !connectors.IsPermanent(err) {
		t.Errorf("a reference without a client: %v, want a permanent refusal", err)
	}
}

func TestDiscover_ListsGrantsOfSubject(t *testing.T) {
	p := provider(t)
	connector, _ := grants(t, p)
	ada := uuid.New()
	if _, err := p.Authorize(t.Context(), ada.String()); err != nil {
		t.Fatal(err)
	}
	found, err := connector.Discover(t.Context(), []connectors.Principal{{ID: uuid.New()}, {ID: ada}})
	if err != nil || len(found) != 1 || found[0].Reference != GrantReference(ada.String(), openid.ClientID) ||
		found[0].Principal != ada {
		t.Errorf("found %+v, %v; want Ada's one grant", found, err)
	}
}

func TestDiscover_ReadsEveryPage(t *testing.T) {
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client := "one"
		if r.URL.Query().Get("page_token") == "" {
			w.Header().Set("Link", `<`+server.URL+`/x?page_token=abc>; rel="next",<`+server.URL+`/x>; rel="first"`)
		} else {
			client = "two"
		}
		_, _ = w.Write([]byte(`[{"grant_scope":["mail"],"consent_request":{"client":{"client_id":"` + client + `"}}}]`))
	}))
	defer server.Close()
	found, err := connect(t, Config{AdminURL: server.URL}).Discover(t.Context(), []connectors.Principal{{ID: uuid.New()}})
	if err != nil || len(found) != 2 {
		t.Errorf("found %+v, %v; want the grants of both pages", found, err)
	}
}

func TestRevoke_UnsupportedTokenTypeExpires(t *testing.T) {
	expires := time.Now().Add(time.Hour)
	contract.RunAnswers(t, []contract.Answer{
		{
			Name: "unsupported_token_type", Status: 400, Body: `{"error":"unsupported_token_type"}`,
			Outcome: connectors.Expires,
		},
	}, connectors.Target{Kind: connectors.AccessToken, Secret: "jwt", ExpiresAt: &expires}, func(t *testing.T, url string) connectors.Connector {
		return connect(t, Config{RevocationURL: url, ClientID: "c"})
	})
}

// TestProbe_DetectsIneffectiveRevocation revokes a token as a client that does not own it.
// The provider may return 200, but the token stays alive.
func TestProbe_DetectsIneffectiveRevocation(t *testing.T) {
	p := provider(t)
	target := issue(t, p)
	other := settings(t, p)
	other.ClientID = openid.OtherClientID
	_, revokeErr := connect(t, other).Revoke(t.Context(), target)
	active, err := p.Active(t.Context(), target.Secret.Reveal())
	if err != nil || !active {
		t.Fatalf("active %t, %v: another client revoked the token", active, err)
	}
	vitality, _, err := connect(t, settings(t, p)).Probe(t.Context(), target)
	if vitality != connectors.Alive || err != nil {
		t.Errorf("probe %s, %v after the revocation returned %v; want alive", vitality, err, revokeErr)
	}
}

func TestProve_RevokesNewTokensOfASuccessfulRefresh(t *testing.T) {
	p := provider(t)
	target := issue(t, p)
	c := settings(t, p)
	c.IntrospectionURL = "" // introspection would prove it without using the token
	vitality, _, err := connect(t, c).Prove(t.Context(), target)
	if err != nil || vitality != connectors.Alive {
		t.Fatalf("a live token: %s, %v; want alive", vitality, err)
	}
	// The refresh replaced the token, and the replacement was revoked.
	if active, err := p.Active(t.Context(), target.Secret.Reveal()); err != nil || active {
		t.Errorf("the used token: active %t, %v", active, err)
	}
}

func TestProbe_InvalidIntrospectionProvesNothing(t *testing.T) {
	for name, body := range map[string]string{
		"no JSON": "<html>", "no member": "{}", "a string": `{"active":"false"}`,
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(
				w http.ResponseWriter, _ *http.Request,
			) {
				_, _ = w.Write([]byte(body))
			}))
			defer server.Close()
			vitality, _, err := connect(t, Config{
				RevocationURL: server.URL, IntrospectionURL: server.URL, ClientID: "c",
			}).
				Probe(t.Context(), connectors.Target{Kind: connectors.RefreshToken, Secret: "x"})
			if vitality != connectors.Unknown || err == nil {
				t.Errorf("%s, %v; want unknown and an error", vitality, err)
			}
		})
	}
}
