package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/ssf"
)

// receiver accepts pushed tokens and verifies their signatures; tests can override its responses.
type receiver struct {
	url string

	mu      sync.Mutex
	jwks    string // URL of the transmitter's keys
	took    []set
	refused int
	// answer may write the response instead of the receiver; it reports whether it did.
	answer func(w http.ResponseWriter, s set) bool
}

// set is a security event token's claims.
type set struct {
	Issuer   string                    `json:"iss"`
	Audience []string                  `json:"aud"`
	JTI      string                    `json:"jti"`
	Txn      string                    `json:"txn"`
	Subject  map[string]string         `json:"sub_id"`
	Events   map[string]map[string]any `json:"events"`
	Sub      *string                   `json:"sub"`
	Expiry   *int64                    `json:"exp"`
}

func (s set) event() string {
	for name := range s.Events {
		return name[strings.LastIndexAny(name, "/")+1:]
	}
	return ""
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		s, verified := openSET(r.jwks, string(body))
		if err != nil || !verified || req.Header.Get("Content-Type") != "application/secevent+jwt" ||
			req.Header.Get("Authorization") != "Bearer hook" {
			r.refused++
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"err":"invalid_request","description":"bad token"}`)
			return
		}
		if r.answer != nil && r.answer(w, s) {
			return
		}
		r.took = append(r.took, s)
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// openSET verifies a token's signature with the keys at jwksURL, and returns its claims.
func openSET(jwksURL, raw string) (s set, ok bool) {
	resp, err := http.Get(jwksURL)
	if err != nil {
		return s, false
	}
	defer func() { _ = resp.Body.Close() }()
	var keys jose.JSONWebKeySet
	if json.NewDecoder(resp.Body).Decode(&keys) != nil {
		return s, false
	}
	token, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil || token.Headers[0].ExtraHeaders["typ"] != "secevent+jwt" {
		return s, false
	}
	for _, key := range keys.Key(token.Headers[0].KeyID) {
		if token.Claims(key, &s) == nil {
			return s, s.Sub == nil && s.Expiry == nil
		}
	}
	return s, false
}

func (r *receiver) answerWith(f func(w http.ResponseWriter, s set) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

// events returns the names of the accepted events about a principal, in order.
func (r *receiver) events(principal string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := []string{}
	for _, s := range r.took {
		if s.Subject["sub"] == principal || strings.HasSuffix(s.Subject["uri"], principal) {
			events = append(events, s.event())
		}
	}
	return events
}

func withPrivateReceivers(c *config.Config) { c.Signals.PrivateReceivers = true }

// stream creates a push stream to the receiver, and returns its id.
func (i *installation) stream(r *receiver, token string, events ...string) string {
	i.t.Helper()
	r.mu.Lock()
	r.jwks = i.url + "/ssf/v1/jwks.json"
	r.mu.Unlock()
	requested, err := json.Marshal(events)
	if err != nil {
		i.t.Fatal(err)
	}
	return i.must("POST", "/ssf/v1/streams", token, fmt.Sprintf(
		`{"delivery":{"method":"urn:ietf:rfc:8935","endpoint_url":%q,`+
			`"authorization_header":"Bearer hook"},"events_requested":%s}`, r.url, requested))["stream_id"].(string)
}

// polled creates a poll stream, and returns the path to poll.
func (i *installation) polled(token string, events ...string) (path string) {
	i.t.Helper()
	requested, err := json.Marshal(events)
	if err != nil {
		i.t.Fatal(err)
	}
	created := i.must("POST", "/ssf/v1/streams", token, fmt.Sprintf(`{"events_requested":%s}`, requested))
	return strings.TrimPrefix(created["delivery"].(map[string]any)["endpoint_url"].(string), i.url)
}

// relaysSignals relays signals as `leaver serve` does.
func (i *installation) relaysSignals() {
	i.runsUntilTheEnd(func(ctx context.Context) { i.app.Signals.Relay(ctx, i.app.Starter(), i.app.Log) })
	i.runsUntilTheEnd(func(ctx context.Context) { i.app.Signals.Listen(ctx, i.app.Log) })
}

// runsUntilTheEnd runs a part of `leaver serve` until the test ends.
func (i *installation) runsUntilTheEnd(part func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { part(ctx); close(done) }()
	i.t.Cleanup(func() { cancel(); <-done })
}

func (r *receiver) awaits(t *testing.T, principal string, want ...string) {
	t.Helper()
	var got []string
	defer func() {
		if t.Failed() {
			t.Logf("the receiver accepted %v", got)
		}
	}()
	stacktest.Eventually(t, 30*time.Second, fmt.Sprint("the events ", want), func() bool {
		got = r.events(principal)
		return slices.Equal(got, want)
	})
}

func TestPush_DeliversSignedEventsInOrder(t *testing.T) {
	p, r := newPlatform(t), newReceiver(t)
	i := install(t, withConnectors(p.connector()), withPrivateReceivers)
	i.relaysSignals()
	i.apply(engineering)
	receiver := i.token(i.tenant.ID, auth.ClassReceiver)
	stream := i.stream(r, receiver)
	ada := i.createUser("ada@example.com")
	i.createGroup("engineering-prod", ada)
	i.becomes(ada, "role:developer", "scope:deploy", "team:Engineering")
	i.hold(p, ada, "", "key")
	i.patch("/Users/"+ada, `{"op":"add","path":"title","value":"Countess"}`)
	r.awaits(t, ada, "urn:ietf:params:scim:event:prov:create:notice", "token-claims-change",
		"urn:ietf:params:scim:event:prov:patch:notice")
	i.deactivate(ada)
	i.closed(ada)
	r.awaits(t, ada, "urn:ietf:params:scim:event:prov:create:notice", "token-claims-change",
		"urn:ietf:params:scim:event:prov:patch:notice", "urn:ietf:params:scim:event:prov:deactivate",
		"account-disabled", "session-revoked", "token-claims-change", "credential-change")
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused > 0 {
		t.Errorf("%d tokens have an invalid signature or header", r.refused)
	}
	issuer := i.url + "/t/acme"
	for _, s := range r.took {
		if s.Issuer != issuer || !slices.Equal(s.Audience, []string{i.actorOf(receiver)}) || len(s.Events) != 1 {
			t.Errorf("a token's claims: %+v", s)
		}
	}
	last := r.took[len(r.took)-1]
	if want := map[string]string{"format": "iss_sub", "iss": issuer, "sub": ada}; !cmp.Equal(last.Subject, want) ||
		!strings.HasPrefix(last.Txn, "leaver/") {
		t.Errorf("the last token's subject %v, txn %q", last.Subject, last.Txn)
	}
	if status := i.must("GET", "/ssf/v1/status?stream_id="+stream, receiver, ""); status["status"] != "enabled" {
		t.Errorf("the status: %v", status)
	}
}

// TestPush_FailingReceiverDelaysNoOtherAndLosesNothing has one kind of failure a row.
func TestPush_FailingReceiverDelaysNoOtherAndLosesNothing(t *testing.T) {
	long(t)
	for name, fail := range map[string]func(w http.ResponseWriter){
		"401": func(w http.ResponseWriter) { w.WriteHeader(http.StatusUnauthorized) },
		"429": func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		},
		"500": func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) },
		"a redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://169.254.169.254/")
			w.WriteHeader(http.StatusFound)
		},
		"400 authentication_failed": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"err":"authentication_failed"}`)
		},
		"a closed connection": func(w http.ResponseWriter) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bad, good := newReceiver(t), newReceiver(t)
			i := install(t, withPrivateReceivers)
			i.relaysSignals()
			token := i.token(i.tenant.ID, auth.ClassReceiver)
			stream := i.stream(bad, token, ssf.AccountDisabled)
			i.stream(good, token, ssf.AccountDisabled)
			failures := 2
			bad.answerWith(func(w http.ResponseWriter, _ set) bool {
				if failures == 0 {
					return false
				}
				failures--
				fail(w)
				return true
			})
			ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
			i.deactivate(ada)
			i.deactivate(bob)
			good.awaits(t, bob, "account-disabled")
			bad.awaits(t, ada, "account-disabled")
			bad.awaits(t, bob, "account-disabled")
			// The queue is empty once the receiver has accepted the tokens.
			stacktest.Eventually(t, 10*time.Second, "an empty queue", func() bool {
				for _, v := range i.must("GET", "/v1/tenants/acme/streams", i.operator, "")["items"].([]any) {
					if s := v.(map[string]any); s["id"] == stream {
						return s["waiting"] == 0.0
					}
				}
				return false
			})
		})
	}
}

func TestPush_RefusedTokenIsReportedAndNotSentAgain(t *testing.T) {
	r := newReceiver(t)
	i := install(t, withPrivateReceivers)
	i.relaysSignals()
	i.stream(r, i.token(i.tenant.ID, auth.ClassReceiver), ssf.AccountDisabled)
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	asked := 0
	r.answerWith(func(w http.ResponseWriter, s set) bool {
		if s.Subject["sub"] != ada {
			return false
		}
		asked++
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"err":"invalid_audience","description":"not me"}`)
		return true
	})
	i.deactivate(ada)
	i.deactivate(bob)
	r.awaits(t, bob, "account-disabled")
	view := i.must("GET", "/v1/tenants/acme/streams", i.operator, "")["items"].([]any)[0].(map[string]any)
	if asked != 1 || view["refused"] != 1.0 || view["waiting"] != 0.0 {
		t.Errorf("sent %d times; the stream: %v; want one delivery that was refused", asked, view)
	}
}

func TestStream_FollowsSharedSignalsFramework(t *testing.T) {
	r := newReceiver(t)
	i := install(t, withPrivateReceivers)
	i.relaysSignals()
	token := i.token(i.tenant.ID, auth.ClassReceiver)
	id := i.stream(r, token, ssf.AccountDisabled, "https://example.com/unknown-event")
	got := i.must("GET", "/ssf/v1/streams?stream_id="+id, token, "")
	want := map[string]any{
		"stream_id": id, "iss": i.url + "/t/acme", "aud": []any{i.actorOf(token)},
		"delivery":         map[string]any{"method": "urn:ietf:rfc:8935", "endpoint_url": r.url},
		"events_requested": []any{ssf.AccountDisabled, "https://example.com/unknown-event"},
		"events_delivered": []any{ssf.AccountDisabled}, "min_verification_interval": 10.0,
	}
	delete(got, "events_supported")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	status := func(status string) {
		t.Helper()
		i.must("POST", "/ssf/v1/status", token, fmt.Sprintf(`{"stream_id":%q,"status":%q,"reason":"test"}`, id, status))
	}
	ada, bob, cyd := i.createUser("ada"), i.createUser("bob"), i.createUser("cyd")
	status("paused")
	i.deactivate(ada)
	status("enabled")
	r.awaits(t, ada, "account-disabled") // events of a paused stream are kept
	status("disabled")
	i.deactivate(bob)
	status("enabled")
	i.deactivate(cyd)
	r.awaits(t, cyd, "account-disabled")
	if got := r.events(bob); len(got) > 0 {
		t.Errorf("the receiver accepted %v of the time while the stream was disabled, want nothing", got)
	}
	i.raw("POST", "/ssf/v1/verify", token, fmt.Sprintf(`{"stream_id":%q,"state":"s-1"}`, id))
	stacktest.Eventually(t, 20*time.Second, "the verification", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		last := r.took[len(r.took)-1]
		return last.Events[ssf.VerificationEvent]["state"] == "s-1" &&
			last.Subject["format"] == "opaque" && last.Subject["id"] == id
	})
	i.must("PATCH", "/ssf/v1/streams", token, fmt.Sprintf(`{"stream_id":%q,"description":"ours"}`, id))
	if status, _ := i.call("PATCH", "/ssf/v1/streams", token,
		fmt.Sprintf(`{"stream_id":%q,"iss":"https://elsewhere"}`, id)); status != http.StatusBadRequest {
		t.Errorf("another issuer answered %d, want 400", status)
	}
	if status, _ := i.raw("DELETE", "/ssf/v1/streams?stream_id="+id, token, ""); status != http.StatusNoContent {
		t.Errorf("deleting the stream answered %d, want 204", status)
	}
	if status, _ := i.call("GET", "/ssf/v1/streams?stream_id="+id, token, ""); status != http.StatusNotFound {
		t.Errorf("the deleted stream answered %d, want 404", status)
	}
	if status, _ := i.call("GET", "/ssf/v1/streams", i.platform, ""); status != http.StatusUnauthorized {
		t.Errorf("a platform token answered %d, want 401", status)
	}
}

func TestPoll_KeepsTokenUntilAcknowledged(t *testing.T) {
	i := installAPI(t)
	token := i.token(i.tenant.ID, auth.ClassReceiver)
	poll := i.polled(token, ssf.AccountDisabled)
	if sets := i.must("POST", poll, token, `{"returnImmediately":true}`)["sets"].(map[string]any); len(sets) != 0 {
		t.Fatalf("the new stream has %v, want nothing", sets)
	}
	users := []string{i.createUser("ada"), i.createUser("bob"), i.createUser("cyd")}
	for _, id := range users {
		i.deactivate(id)
	}
	first := i.must("POST", poll, token, `{"maxEvents":2}`)
	sets := first["sets"].(map[string]any)
	if len(sets) != 2 || first["moreAvailable"] != true {
		t.Fatalf("the first poll: %v", first)
	}
	var ack []string
	for jti, raw := range sets {
		s, ok := openSET(i.url+"/ssf/v1/jwks.json", raw.(string))
		if !ok || s.JTI != jti {
			t.Errorf("the token %s does not verify", jti)
		}
		ack = append(ack, jti)
	}
	again := i.must("POST", poll, token, `{"maxEvents":2}`)["sets"].(map[string]any)
	for jti := range again {
		if !slices.Contains(ack, jti) {
			t.Errorf("the second poll without an acknowledgement returned another token: %s", jti)
		}
	}
	acknowledged, err := json.Marshal(ack)
	if err != nil {
		t.Fatal(err)
	}
	last := i.must("POST", poll, token, fmt.Sprintf(`{"ack":%s}`, acknowledged))
	if len(last["sets"].(map[string]any)) != 1 || last["moreAvailable"] != false {
		t.Errorf("after the acknowledgement: %v", last)
	}
	for jti := range last["sets"].(map[string]any) {
		i.must("POST", poll, token,
			fmt.Sprintf(`{"maxEvents":0,"setErrs":{%q:{"err":"invalid_key","description":"?"}}}`, jti))
	}
	if left := i.must("POST", poll, token, `{"returnImmediately":true}`)["sets"].(map[string]any); len(left) != 0 {
		t.Errorf("after all tokens were acknowledged or refused, the stream has %v, want nothing", left)
	}
}

func TestPush_RefusesPrivateAddresses(t *testing.T) {
	r := newReceiver(t)
	i := install(t)
	i.relaysSignals()
	token := i.token(i.tenant.ID, auth.ClassReceiver)
	body := func(endpoint string) string {
		return fmt.Sprintf(`{"delivery":{"method":"urn:ietf:rfc:8935","endpoint_url":%q}}`, endpoint)
	}
	for _, endpoint := range []string{r.url, "ftp://example.com", "https://user:pw@example.com", "https://", ""} {
		if status, _ := i.call("POST", "/ssf/v1/streams", token, body(endpoint)); status != http.StatusBadRequest {
			t.Errorf("the endpoint %q answered %d, want 400", endpoint, status)
		}
	}
	// A host name with a private address is refused when it is resolved for the push.
	i.must("POST", "/ssf/v1/streams", token,
		body(strings.Replace(strings.Replace(r.url, "http://", "https://", 1), "127.0.0.1", "localhost", 1)))
	ada := i.createUser("ada")
	i.deactivate(ada)
	stacktest.Eventually(t, 20*time.Second, "the refusal", func() bool {
		view := i.must("GET", "/v1/tenants/acme/streams", i.operator, "")["items"].([]any)[0].(map[string]any)
		said, _ := view["lastError"].(string)
		return strings.Contains(said, "private") && view["waiting"] != 0.0
	})
}

func TestTransmitter_ServesMetadata(t *testing.T) {
	i := installAPI(t)
	metadata := i.must("GET", "/.well-known/ssf-configuration/t/acme", "", "")
	if metadata["issuer"] != i.url+"/t/acme" || metadata["configuration_endpoint"] != i.url+"/ssf/v1/streams" ||
		metadata["jwks_uri"] != i.url+"/ssf/v1/jwks.json" {
		t.Errorf("the metadata: %v", metadata)
	}
}

func TestPush_SendsAsyncCompletionEvent(t *testing.T) {
	r := newReceiver(t)
	i := install(t, withPrivateReceivers)
	i.relaysSignals()
	i.stream(r, i.token(i.tenant.ID, auth.ClassReceiver), "urn:ietf:params:scim:event:misc:asyncresp")
	ada, bob := i.createUser("ada"), i.createUser("bob")
	i.deactivate(bob)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, i.url+"/scim/v2/Users/"+ada, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+i.scim)
	req.Header.Set("Prefer", "respond-async")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	r.awaits(t, ada, "urn:ietf:params:scim:event:misc:asyncresp")
	r.mu.Lock()
	defer r.mu.Unlock()
	if txn := r.took[0].Txn; txn != resp.Header.Get("Set-Txn") || len(r.took) != 1 {
		t.Errorf("received %d events with txn %q, want one with that of Set-Txn, %q",
			len(r.took), txn, resp.Header.Get("Set-Txn"))
	}
}

// TestStream_DeletionFailsNoDeactivation checks that a deactivation does not fail if a stream is
// deleted at the same time.
func TestStream_DeletionFailsNoDeactivation(t *testing.T) {
	i := installAPI(t)
	token := i.token(i.tenant.ID, auth.ClassReceiver)
	var users []string
	for n := range 60 {
		users = append(users, i.createUser(fmt.Sprint("user-", n)))
	}
	stop := make(chan struct{})
	var churn sync.WaitGroup
	for range 3 {
		churn.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, raw := i.raw("POST", "/ssf/v1/streams", token, `{}`)
				var created struct {
					ID string `json:"stream_id"`
				}
				if json.Unmarshal(raw, &created) == nil {
					i.raw("DELETE", "/ssf/v1/streams?stream_id="+created.ID, token, "")
				}
			}
		})
	}
	for _, id := range users {
		i.deactivate(id)
	}
	close(stop)
	churn.Wait()
}

func TestSignals_ExpireAndAreDeleted(t *testing.T) {
	i := installAPI(t)
	token := i.token(i.tenant.ID, auth.ClassReceiver)
	poll := i.polled(token, ssf.AccountDisabled)
	i.deactivate(i.createUser("ada"))
	age := func(column string) {
		t.Helper()
		err := i.app.DB.InTenant(t.Context(), i.tenant.ID, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(),
				`update signals set `+column+` = now() - interval '8 days' where tenant_id = $1`, i.tenant.ID)
			return err
		})
		if err == nil {
			err = i.app.Signals.Sweep(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	age("created_at")
	if sets := i.must("POST", poll, token, `{"returnImmediately":true}`)["sets"].(map[string]any); len(sets) != 0 {
		t.Errorf("the stream still has %v, want nothing", sets)
	}
	view := func() map[string]any {
		return i.must("GET", "/v1/tenants/acme/streams", i.operator, "")["items"].([]any)[0].(map[string]any)
	}
	if v := view(); v["expired"] != 1.0 {
		t.Errorf("the stream: %v", v)
	}
	age("settled_at")
	if v := view(); v["expired"] != 0.0 {
		t.Errorf("after the retention: %v", v)
	}
}

func TestPoll_ReturnsEventsOfPrincipalInOrder(t *testing.T) {
	i := installAPI(t)
	token := i.token(i.tenant.ID, auth.ClassReceiver)
	poll := i.polled(token, ssf.AccountDisabled, ssf.AccountEnabled)
	ada := i.createUser("ada")
	for n := range 6 {
		i.patch("/Users/"+ada, fmt.Sprintf(`{"op":"replace","path":"active","value":%t}`, n%2 == 1))
	}
	var events []string
	ack := `[]`
	for {
		answer := i.must("POST", poll, token, fmt.Sprintf(`{"returnImmediately":true,"ack":%s}`, ack))
		sets := answer["sets"].(map[string]any)
		if len(sets) == 0 {
			break
		}
		if len(sets) > 1 {
			t.Fatalf("one poll returned %d events of the same principal, want 1", len(sets))
		}
		for jti, raw := range sets {
			s, _ := openSET(i.url+"/ssf/v1/jwks.json", raw.(string))
			events, ack = append(events, s.event()), fmt.Sprintf(`[%q]`, jti)
		}
	}
	if want := []string{
		"account-disabled", "account-enabled", "account-disabled", "account-enabled", "account-disabled", "account-enabled",
	}; !slices.Equal(events, want) {
		t.Errorf("events %v, want %v", events, want)
	}
}

// actorOf returns the name of a token's owner.
func (i *installation) actorOf(token string) string {
	i.t.Helper()
	caller, err := i.app.Auth().Authenticate(i.t.Context(), token, auth.ClassReceiver)
	if err != nil {
		i.t.Fatal(err)
	}
	return caller.Actor()
}

// TestStream_NamesSubjectsAsItsReceiver has one format a row: the same events about a user, an agent
// with a client, and one without, which no receiver knows.
func TestStream_NamesSubjectsAsItsReceiver(t *testing.T) {
	i := install(t, withPrivateReceivers)
	i.relaysSignals()
	ada := i.must("POST", "/scim/v2/Users", i.scim, `{"userName":"ada","externalId":"00u1","active":true,`+
		`"emails":[{"value":"Ada@Example.com"}]}`)["id"].(string)
	agent := i.clientOf("writer", ada, "client-1", ownIssuer)
	nameless := i.createAgent("nameless", ada)
	type subject = map[string]string
	own := subject{"format": "iss_sub", "iss": i.url + "/t/acme", "sub": nameless}
	receivers, want := map[string]*receiver{}, map[string][3]subject{
		`{}`: {
			{"format": "iss_sub", "iss": i.url + "/t/acme", "sub": ada}, {"format": "iss_sub", "iss": i.url + "/t/acme", "sub": agent}, own,
		},
		`{"subject_format":"iss_sub","subject_issuer":"` + ownIssuer + `"}`: {
			{"format": "iss_sub", "iss": ownIssuer, "sub": "00u1"}, {"format": "iss_sub", "iss": ownIssuer, "sub": "client-1"}, own,
		},
		`{"subject_format":"email"}`: {
			{"format": "email", "email": "Ada@Example.com"}, {"format": "iss_sub", "iss": i.url + "/t/acme", "sub": agent}, own,
		},
	}
	token := i.token(i.tenant.ID, auth.ClassReceiver)
	for asked := range want {
		r := newReceiver(t)
		receivers[asked] = r
		id := i.stream(r, token, ssf.AccountDisabled)
		i.must("PATCH", "/ssf/v1/streams", token, `{"stream_id":"`+id+`",`+strings.TrimPrefix(strings.Replace(asked, "{}", "{\"description\":\"\"}", 1), "{"))
	}
	i.deactivate(ada) // the agent ends with its owner
	for asked, subjects := range want {
		var got []subject
		stacktest.Eventually(t, 20*time.Second, "three events with "+asked, func() bool {
			r := receivers[asked]
			r.mu.Lock()
			defer r.mu.Unlock()
			got = nil
			for _, s := range r.took {
				got = append(got, s.Subject)
			}
			return len(got) == 3
		})
		for _, s := range subjects {
			if !slices.ContainsFunc(got, func(g subject) bool { return cmp.Equal(g, s) }) {
				t.Errorf("%s: the subjects are %v, want %v", asked, got, subjects)
			}
		}
	}
	id := i.stream(newReceiver(t), token)
	for _, body := range []string{`"subject_format":"phone"`, `"subject_format":"iss_sub"`, `"subject_issuer":"https://x"`} {
		if status, _ := i.call("PATCH", "/ssf/v1/streams", token, `{"stream_id":"`+id+`",`+body+`}`); status != http.StatusBadRequest {
			t.Errorf("%s answered %d, want 400", body, status)
		}
	}
}

// TestStream_SubjectsAreRemovedAndAdded checks that a removal is of one stream and of the tenant's own
// principals.
func TestStream_SubjectsAreRemovedAndAdded(t *testing.T) {
	r := newReceiver(t)
	i := install(t, withPrivateReceivers)
	i.relaysSignals()
	token := i.token(i.tenant.ID, auth.ClassReceiver)
	id := i.stream(r, token, ssf.AccountDisabled, ssf.AccountEnabled)
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	change := func(verb, subject, by string) int {
		t.Helper()
		status, _ := i.raw("POST", "/ssf/v1/subjects:"+verb, by, fmt.Sprintf(`{"stream_id":%q,"subject":%s}`, id, subject))
		return status
	}
	const email = `{"format":"email","email":"ada@example.com"}`
	if status := change("remove", email, token); status != http.StatusNoContent {
		t.Fatalf("the removal answered %d", status)
	}
	i.deactivate(ada)
	i.deactivate(bob)
	r.awaits(t, bob, "account-disabled")
	if got := r.events(ada); len(got) > 0 {
		t.Errorf("events of a removed subject: %v", got)
	}
	if status := change("add", email, token); status != http.StatusOK {
		t.Fatalf("the addition answered %d", status)
	}
	i.patch("/Users/"+ada, `{"op":"replace","path":"active","value":true}`)
	r.awaits(t, ada, "account-enabled")
	other, otherSCIM, _ := i.newTenant("umbrella")
	foreign := i.must("POST", "/scim/v2/Users", otherSCIM, `{"userName":"eve","active":true}`)["id"].(string)
	if status := change("add", `{"format":"opaque","id":"`+foreign+`"}`, token); status != http.StatusNotFound {
		t.Errorf("another tenant's subject answered %d, want 404", status)
	}
	if status := change("remove", email, i.token(other.ID, auth.ClassReceiver)); status != http.StatusNotFound {
		t.Errorf("another tenant's receiver answered %d, want 404", status)
	}
}

func TestStream_VerifiesAtItsInterval(t *testing.T) {
	i := install(t, withPrivateReceivers)
	token := i.token(i.tenant.ID, auth.ClassReceiver)
	id := i.stream(newReceiver(t), token)
	i.must("POST", "/ssf/v1/verify", token, `{"stream_id":"`+id+`"}`)
	if status, _ := i.raw("POST", "/ssf/v1/verify", token, `{"stream_id":"`+id+`"}`); status != http.StatusTooManyRequests {
		t.Errorf("a second verification answered %d, want 429", status)
	}
}
