package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/ssf"
)

const sessionRevoked = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"

func (i *installation) addIssuer(p *idp, audience, use, subjects string) (id string) {
	i.t.Helper()
	return i.must("POST", "/v1/tenants/acme/issuers", i.operator, fmt.Sprintf(
		`{"issuer":%q,"audience":%q,"jwksUrl":%q,"uses":[%q],"subjects":%s}`,
		p.url, audience, p.url, use, subjects))["id"].(string)
}

func (i *installation) isActive(user string) any {
	i.t.Helper()
	return i.must("GET", "/scim/v2/Users/"+user, i.scim, "")["active"]
}

func TestIssuer_SubjectsHoldForEvents(t *testing.T) {
	p := newIDP(t)
	i := installAPI(t)
	i.addIssuer(p, "https://leaver.example.com", "events", `["only-this-subject"]`)
	ada := i.createUser("ada@example.com")
	subject := map[string]string{"format": "email", "email": "ada@example.com"}
	for name, c := range map[string]struct {
		claims map[string]any
		want   bool
	}{
		"no subject":                  {nil, false},
		"another's":                   {map[string]any{"sub": "attacker", "azp": "attacker"}, false},
		"another's of a known client": {map[string]any{"sub": "attacker", "azp": "only-this-subject"}, false},
		"its own":                     {map[string]any{"sub": "only-this-subject"}, true},
	} {
		set := p.sign(t, "secevent+jwt", p.event(sessionRevoked, subject, func(claims map[string]any) {
			for k, v := range c.claims {
				claims[k] = v
			}
		}))
		status, answer := i.push("/t/acme/events", set)
		if (status == http.StatusAccepted) != c.want {
			t.Errorf("%s: answered %d %s", name, status, answer)
		}
	}
	if i.isActive(ada) != false {
		t.Error("the event of the configured subject did not deactivate the user")
	}
}

// TestIssuer_ReplayIsIgnoredAfterReregistration removes and adds the issuer between two deliveries of
// one token, as operators do to change an issuer.
func TestIssuer_ReplayIsIgnoredAfterReregistration(t *testing.T) {
	p := newIDP(t)
	i := installAPI(t)
	id := i.addIssuer(p, "https://leaver.example.com", "events", `[]`)
	ada := i.createUser("ada@example.com")
	set := p.sign(t, "secevent+jwt",
		p.event(sessionRevoked, map[string]string{"format": "email", "email": "ada@example.com"}, nil))
	if status, answer := i.push("/t/acme/events", set); status != http.StatusAccepted || i.isActive(ada) != false {
		t.Fatalf("answered %d %s", status, answer)
	}
	i.must("PATCH", "/scim/v2/Users/"+ada, i.scim, patchActive("true"))
	if status, _ := i.raw("DELETE", "/v1/tenants/acme/issuers/"+id, i.operator, ""); status != http.StatusNoContent {
		t.Fatal(status)
	}
	i.addIssuer(p, "https://leaver.example.com", "events", `[]`)
	if status, answer := i.push("/t/acme/events", set); status != http.StatusAccepted {
		t.Errorf("answered %d %s", status, answer)
	}
	if i.isActive(ada) != true {
		t.Error("a replayed token deactivated the user again")
	}
}

// TestIssuer_SubjectsAreBoundToOneClaim checks that a subject that names an application does not
// accept the tokens of the application's users.
func TestIssuer_SubjectsAreBoundToOneClaim(t *testing.T) {
	long(t)
	for name, c := range map[string]struct {
		subject string
		typ     string
		claims  map[string]any
		want    int
	}{
		"the application's own token": {
			"azp=client-a", "JWT", map[string]any{"sub": "client-a", "azp": "client-a"}, 200,
		},
		"a user's token of the application": {"azp=client-a", "JWT", map[string]any{"sub": "user-x", "azp": "client-a"}, 401},
		"the same, with the bare name":      {"client-a", "JWT", map[string]any{"sub": "user-x", "azp": "client-a"}, 401},
		"Entra's application token": {
			"appid=app-1", "JWT", map[string]any{"sub": "oid-1", "oid": "oid-1", "appid": "app-1"}, 200,
		},
		"Entra's application token, marked": {
			"appid=app-1", "JWT", map[string]any{"sub": "s", "oid": "o", "appid": "app-1", "idtyp": "app"}, 200,
		},
		"Entra's delegated token": {
			"appid=app-1", "JWT", map[string]any{"sub": "oid-1", "oid": "oid-1", "appid": "app-1", "scp": "user_impersonation"}, 401,
		},
		"Entra's delegated token, marked": {
			"appid=app-1", "JWT", map[string]any{"sub": "app-1", "appid": "app-1", "idtyp": "user"}, 401,
		},
		"another claim of that value": {"sub=client-a", "JWT", map[string]any{"azp": "client-a"}, 401},
		"an access token of RFC 9068": {"client_id=c", "at+jwt", map[string]any{"sub": "c", "client_id": "c"}, 200},
		"the same type as a media type": {
			"client_id=c", "application/at+jwt", map[string]any{"sub": "c", "client_id": "c"}, 200,
		},
		"a proof of possession":                 {"sub=c", "dpop+jwt", map[string]any{"sub": "c"}, 401},
		"a security event":                      {"sub=c", "secevent+jwt", map[string]any{"sub": "c"}, 401},
		"a security event with a parameter":     {"sub=c", "secevent+jwt; x=1", map[string]any{"sub": "c"}, 401},
		"a type that leaver has never heard of": {"sub=c", "kb+jwt", map[string]any{"sub": "c"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			p := newIDP(t)
			i := installAPI(t)
			i.addIssuer(p, "leaver", "scim", fmt.Sprintf("[%q]", c.subject))
			claims := map[string]any{"iss": p.url, "aud": "leaver", "exp": time.Now().Add(time.Hour).Unix()}
			for k, v := range c.claims {
				claims[k] = v
			}
			if status, raw := i.raw("GET", "/scim/v2/Users", p.sign(t, c.typ, claims), ""); status != c.want {
				t.Errorf("answered %d %s, want %d", status, raw, c.want)
			}
		})
	}
}

// TestStream_BelongsToItsToken checks that only the token that created a stream may use it, until an
// operator assigns the stream to another token.
func TestStream_BelongsToItsToken(t *testing.T) {
	r := newReceiver(t)
	i := installAPI(t, withPrivateReceivers)
	mine, other := i.token(i.tenant.ID, auth.ClassReceiver), i.token(i.tenant.ID, auth.ClassReceiver)
	stream := i.stream(r, mine, ssf.AccountDisabled)
	requests := map[string]func(token string) (int, []byte){
		"get":    func(token string) (int, []byte) { return i.raw("GET", "/ssf/v1/streams?stream_id="+stream, token, "") },
		"status": func(token string) (int, []byte) { return i.raw("GET", "/ssf/v1/status?stream_id="+stream, token, "") },
		"pause": func(token string) (int, []byte) {
			return i.raw("POST", "/ssf/v1/status", token, fmt.Sprintf(`{"stream_id":%q,"status":"enabled"}`, stream))
		},
		"change": func(token string) (int, []byte) {
			return i.raw("PATCH", "/ssf/v1/streams", token, fmt.Sprintf(`{"stream_id":%q,"description":"x"}`, stream))
		},
		"verify": func(token string) (int, []byte) {
			return i.raw("POST", "/ssf/v1/verify", token, fmt.Sprintf(`{"stream_id":%q}`, stream))
		},
		"poll": func(token string) (int, []byte) {
			return i.raw("POST", "/ssf/v1/poll/"+stream, token, `{"returnImmediately":true}`)
		},
		"delete": func(token string) (int, []byte) {
			return i.raw("DELETE", "/ssf/v1/streams?stream_id="+stream, token, "")
		},
	}
	for name, request := range requests {
		if status, raw := request(other); status != http.StatusNotFound {
			t.Errorf("%s by another receiver was answered %d %s, want 404", name, status, raw)
		}
	}
	if _, raw := i.raw("GET", "/ssf/v1/streams", other, ""); string(raw) != "[]\n" {
		t.Errorf("another receiver's list: %s", raw)
	}
	for name, request := range requests {
		if name == "delete" || name == "poll" { // the stream is a push stream
			continue
		}
		if status, raw := request(mine); status > 299 {
			t.Errorf("%s by its own receiver was answered %d %s", name, status, raw)
		}
	}
	tokens := i.must("GET", "/v1/tenants/acme/tokens", i.operator, "")["items"].([]any)
	var last string
	for _, token := range tokens {
		if token := token.(map[string]any); token["class"] == "receiver" {
			last = token["id"].(string) // in the order of creation
		}
	}
	if status, raw := i.raw("POST", "/v1/tenants/acme/streams/"+stream+"/assign", i.operator,
		fmt.Sprintf(`{"tokenId":%q}`, last)); status != http.StatusNoContent {
		t.Fatalf("assigning was answered %d %s", status, raw)
	}
	if status, _ := requests["get"](other); status != http.StatusOK {
		t.Errorf("the new receiver was answered %d, want 200", status)
	}
	if status, _ := requests["get"](mine); status != http.StatusNotFound {
		t.Errorf("the old receiver was answered %d, want 404", status)
	}
}

// TestStream_HeadersReachNoOtherEndpoint switches a stream between two endpoints with different
// authorization headers while tokens are pushed.
func TestStream_HeadersReachNoOtherEndpoint(t *testing.T) {
	var mu sync.Mutex
	crossed := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Header.Get("Authorization") != "for "+r.URL.Path {
			crossed++
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	i := installAPI(t, withPrivateReceivers)
	token := i.token(i.tenant.ID, auth.ClassReceiver)
	to := func(path string) string {
		return fmt.Sprintf(
			`"delivery":{"method":%q,"endpoint_url":%q,"authorization_header":"for %s"}`,
			ssf.PushURN,
			server.URL+path,
			path,
		)
	}
	id := i.must("POST", "/ssf/v1/streams", token, "{"+to("/a")+"}")["stream_id"].(string)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 200 {
			i.raw("PATCH", "/ssf/v1/streams", token,
				fmt.Sprintf(`{"stream_id":%q,%s}`, id, to(map[int]string{0: "/a", 1: "/b"}[n%2])))
		}
	}()
	for open := true; open; {
		select {
		case <-done:
			open = false
		default:
		}
		opened, err := i.app.Signals.Open(t.Context(), i.tenant.ID, uuid.MustParse(id))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ssf.NewPusher(true).Push(t.Context(), opened.Endpoint, opened.Header, "set"); err != nil {
			t.Fatal(err)
		}
	}
	if crossed > 0 {
		t.Errorf("%d requests had the header of the other endpoint", crossed)
	}
}

// TestDecision_WeighsTheAgentInTheContext checks that an agent in the context is checked for every
// type of subject.
func TestDecision_WeighsTheAgentInTheContext(t *testing.T) {
	i := installAPI(t)
	i.apply("  - {when: \"true\", scope: read}\n")
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	hers, ended, orphan, his := i.createAgent("hers", ada), i.createAgent("ended", ada),
		i.createAgent("orphan", bob), i.createAgent("his", ada)
	i.must("PATCH", "/scim/v2/Agents/"+ended, i.scim, patchActive("false"))
	_ = his
	i.deactivate(bob)
	for name, c := range map[string]struct {
		subject, context string
		want             string
	}{
		"no agent":                         {`{"type":"user","id":"ada@example.com"}`, `{}`, "allow"},
		"her agent, by its id":             {`{"type":"user","id":"ada@example.com"}`, `{"agent":"` + hers + `"}`, "allow"},
		"her agent, by its name":           {`{"type":"user","id":"` + ada + `"}`, `{"agent":"hers","ip":"10.0.0.1"}`, "allow"},
		"a deactivated agent":              {`{"type":"user","id":"ada@example.com"}`, `{"agent":"` + ended + `"}`, "agent_suspended"},
		"an orphaned agent":                {`{"type":"user","id":"ada@example.com"}`, `{"agent":"` + orphan + `"}`, "owner_gone"},
		"an unknown agent":                 {`{"type":"user","id":"ada@example.com"}`, `{"agent":"nobody"}`, "unknown_agent"},
		"her agent, for an unknown user":   {`{"type":"user","id":"nobody"}`, `{"agent":"hers"}`, "unknown_subject"},
		"an agent beside a deactivated":    {`{"type":"agent","id":"hers","properties":{"on_behalf_of":"ada@example.com"}}`, `{"agent":"ended"}`, "agent_suspended"},
		"an agent beside an unknown":       {`{"type":"agent","id":"hers","properties":{"on_behalf_of":"ada@example.com"}}`, `{"agent":"nobody"}`, "unknown_agent"},
		"an agent beside itself":           {`{"type":"agent","id":"hers","properties":{"on_behalf_of":"ada@example.com"}}`, `{"agent":"hers"}`, "allow"},
		"an agent beside another of hers":  {`{"type":"agent","id":"hers","properties":{"on_behalf_of":"ada@example.com"}}`, `{"agent":"his"}`, "allow"},
		"a deactivated beside an agent":    {`{"type":"agent","id":"ended","properties":{"on_behalf_of":"ada@example.com"}}`, `{"agent":"hers"}`, "agent_suspended"},
		"a subject that has no known type": {`{"type":"robot","id":"x"}`, `{"agent":"hers"}`, "unknown_subject"},
		"an agent that is not a string":    {`{"type":"user","id":"ada@example.com"}`, `{"agent":{"id":"hers"}}`, "400"},
		"an empty agent":                   {`{"type":"user","id":"ada@example.com"}`, `{"agent":""}`, "400"},
		"a context that is not an object":  {`{"type":"user","id":"ada@example.com"}`, `"x"`, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			rest := `"action":{"name":"read"},"resource":{"type":"mail","id":"1"}`
			status, answer := i.call("POST", "/access/v1/evaluation", i.platform,
				fmt.Sprintf(`{"subject":%s,"context":%s,%s}`, c.subject, c.context, rest))
			if got := reasonOf(status, answer); got != c.want {
				t.Errorf("answered %s (%v), want %s", got, answer, c.want)
			}
			if c.want == "400" {
				return
			}
			_, answer = i.call("POST", "/access/v1/evaluations", i.platform,
				fmt.Sprintf(`{"context":%s,%s,"evaluations":[{"subject":%s}]}`, c.context, rest, c.subject))
			if got := reasonOf(200, answer["evaluations"].([]any)[0].(map[string]any)); got != c.want {
				t.Errorf("in a batch it answered %s, want %s", got, c.want)
			}
		})
	}
}

func reasonOf(status int, answer map[string]any) string {
	switch {
	case status != http.StatusOK:
		return fmt.Sprint(status)
	case answer["decision"] == true:
		return "allow"
	}
	context, _ := answer["context"].(map[string]any)
	return fmt.Sprint(context["reason"])
}
