package e2e

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/ssf"
)

func TestPush_HangingReceiverDelaysNoOtherAndIsReported(t *testing.T) {
	long(t)
	bad, good := newReceiver(t), newReceiver(t)
	i := install(t, withPrivateReceivers)
	i.relaysSignals()
	token := i.token(i.tenant.ID, auth.ClassReceiver)
	stream := i.stream(bad, token, ssf.AccountDisabled)
	i.stream(good, token, ssf.AccountDisabled)
	var held []net.Conn
	t.Cleanup(func() {
		for _, conn := range held {
			_ = conn.Close()
		}
	})
	hangs := 2 // one for each event: together longer than the heartbeat timeout of an attempt
	bad.answerWith(func(w http.ResponseWriter, _ set) bool {
		if hangs == 0 {
			return false
		}
		hangs--
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			held = append(held, conn) // without a response
		}
		return true
	})
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	i.deactivate(ada)
	i.deactivate(bob)
	good.awaits(t, bob, "account-disabled")
	if got := bad.events(ada); len(got) > 0 {
		t.Errorf("the hanging receiver accepted %v, want nothing", got)
	}
	stacktest.Eventually(t, time.Minute, "the stream's last error", func() bool {
		for _, v := range i.must("GET", "/v1/tenants/acme/streams", i.operator, "")["items"].([]any) {
			s := v.(map[string]any)
			if said, _ := s["lastError"].(string); s["id"] == stream && said != "" {
				return true
			}
		}
		return false
	})
	bad.awaits(t, ada, "account-disabled")
	bad.awaits(t, bob, "account-disabled")
}

// TestPush_SendsSameTokenAgainAfterWorkerIsKilled kills the worker after the receiver has the token
// and before the delivery is recorded.
func TestPush_SendsSameTokenAgainAfterWorkerIsKilled(t *testing.T) {
	long(t)
	r := newReceiver(t)
	i := installAPI(t, withPrivateReceivers)
	i.relaysSignals()
	i.stream(r, i.token(i.tenant.ID, auth.ClassReceiver), ssf.AccountDisabled)
	reached, over := make(chan struct{}), make(chan struct{})
	end := sync.OnceFunc(func() { close(over) })
	t.Cleanup(end)
	first := true
	r.answerWith(func(http.ResponseWriter, set) bool {
		if first {
			first = false
			close(reached)
			<-over // the worker is killed before the response arrives
		}
		return false
	})
	private := "LEAVER_SIGNALS_PRIVATE_RECEIVERS=true"
	worker := i.process([]string{"worker"}, "connectors: []\n", private)
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	i.killOnce(reached, worker)
	end()
	i.process([]string{"worker"}, "connectors: []\n", private)
	stacktest.Eventually(t, time.Minute, "the token again", func() bool { return len(r.events(ada)) == 2 })
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.took[0].JTI != r.took[1].JTI {
		t.Errorf("the second delivery has another jti: %s and %s", r.took[0].JTI, r.took[1].JTI)
	}
}

// signer is an installation with one token to sign. Each step uses a new process.
type signer struct {
	*installation
	token, poll string
}

func newSigner(t *testing.T) signer {
	t.Helper()
	i := installAPI(t)
	s := signer{installation: i, token: i.token(i.tenant.ID, auth.ClassReceiver)}
	s.poll = i.polled(s.token, ssf.AccountDisabled)
	i.deactivate(i.createUser("ada@example.com"))
	return s
}

// signs returns the id of the key with which a new process signs, and checks that
// the token verifies with the keys that another process serves.
func (s signer) signs() (key string) {
	s.t.Helper()
	for _, raw := range s.another().must("POST", s.poll, s.token, `{"returnImmediately":true}`)["sets"].(map[string]any) {
		parsed, err := jwt.ParseSigned(raw.(string), []jose.SignatureAlgorithm{jose.RS256})
		if err != nil {
			s.t.Fatal(err)
		}
		if _, ok := openSET(s.another().url+"/ssf/v1/jwks.json", raw.(string)); !ok {
			s.t.Error("the token of one process does not verify with the keys that another serves")
		}
		return parsed.Headers[0].KeyID
	}
	s.t.Fatal("there is nothing to sign")
	return ""
}

// served returns the ids of the keys that a new process serves.
func (s signer) served() (ids []string) {
	s.t.Helper()
	for _, k := range s.another().must("GET", "/ssf/v1/jwks.json", "", "")["keys"].([]any) {
		ids = append(ids, k.(map[string]any)["kid"].(string))
	}
	return ids
}

// age moves the creation of a key back by an interval.
func (s signer) age(key, by string) {
	s.t.Helper()
	s.sql(`update signing_keys set created_at = created_at - $2::interval where id = $1`, key, by)
}

// succeeded ages the signing key to nearly a month, and returns it and its successor.
func (s signer) succeeded() (first, second string) {
	s.t.Helper()
	first = s.signs()
	s.age(first, "29 days 23 hours")
	if still := s.signs(); still != first {
		s.t.Errorf("before its month is over, %s signs instead", still)
	}
	both := s.served()
	if len(both) != 2 || !slices.Contains(both, first) {
		s.t.Fatalf("an hour before its month is over, the keys %v are served, want the first and its successor", both)
	}
	return first, both[slices.IndexFunc(both, func(id string) bool { return id != first })]
}

func TestSigning_ProcessesShareOneKey(t *testing.T) {
	s := newSigner(t)
	if first, again := s.signs(), s.signs(); first != again {
		t.Errorf("one process signs with %s, the next with %s", first, again)
	}
}

func TestSigning_SuccessorIsServedBeforeItSigns(t *testing.T) {
	s := newSigner(t)
	first, second := s.succeeded()
	s.age(first, "2 hours")
	s.age(second, "2 hours")
	if now := s.signs(); now != second {
		t.Errorf("after a month, %s signs, want %s", now, second)
	}
}

func TestSigning_OldKeyIsServedWhileItsTokensMayBeInTransit(t *testing.T) {
	s := newSigner(t)
	first, _ := s.succeeded()
	s.age(first, "2 hours")
	if ids := s.served(); !slices.Contains(ids, first) {
		t.Errorf("the first key is no longer served although its tokens may be in transit: %v", ids)
	}
	s.age(first, "30 days")
	if ids := s.served(); slices.Contains(ids, first) {
		t.Errorf("the first key is still served after 30 more days: %v", ids)
	}
}

func TestSigning_ConcurrentFirstUseVerifies(t *testing.T) {
	s := newSigner(t)
	processes := []*installation{s.another(), s.another(), s.another()}
	var all sync.WaitGroup
	answers := make([]map[string]any, len(processes))
	for n, process := range processes {
		all.Go(func() { _, answers[n] = process.call("POST", s.poll, s.token, `{"returnImmediately":true}`) })
	}
	all.Wait()
	jwks := s.another().url + "/ssf/v1/jwks.json"
	for n, answer := range answers {
		sets, _ := answer["sets"].(map[string]any)
		for _, raw := range sets {
			if _, ok := openSET(jwks, raw.(string)); !ok {
				t.Errorf("the token of process %d does not verify", n)
			}
		}
		if len(sets) != 1 {
			t.Errorf("process %d answered %v", n, answer)
		}
	}
}
