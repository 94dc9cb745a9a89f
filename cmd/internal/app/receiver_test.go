package app

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/ssf"
	"github.com/leaverhq/leaver/internal/tenant"
)

func TestAReceiverThatHangsDelaysNobodyAndIsTold(t *testing.T) {
	long(t)
	bad, good := newReceiver(t), newReceiver(t)
	i := install(t, withPrivateReceivers)
	i.relaysSignals()
	token := i.token(i.tenant.ID, tenant.ClassReceiver)
	stream := i.stream(bad, token, ssf.AccountDisabled)
	i.stream(good, token, ssf.AccountDisabled)
	var held []net.Conn
	t.Cleanup(func() {
		for _, conn := range held {
			_ = conn.Close()
		}
	})
	hangs := 2 // one for each of them: together longer than an attempt may be silent
	bad.answerWith(func(w http.ResponseWriter, _ set) bool {
		if hangs == 0 {
			return false
		}
		hangs--
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			held = append(held, conn) // and no answer
		}
		return true
	})
	ada, bob := i.createUser("ada@example.com"), i.createUser("bob@example.com")
	i.deactivate(ada)
	i.deactivate(bob)
	good.awaits(t, bob, "account-disabled")
	if got := bad.events(ada); len(got) > 0 {
		t.Errorf("the one that hangs has been told %v", got)
	}
	stacktest.Eventually(t, time.Minute, "why nothing is delivered", func() bool {
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

// TestAWorkerKilledBetweenPushAndSettling: the receiver has the token, and nobody
// knows. It is sent again, and is the same.
func TestAWorkerKilledBetweenPushAndSettlingSendsTheSameTokenAgain(t *testing.T) {
	long(t)
	r := newReceiver(t)
	i := installAPI(t, withPrivateReceivers)
	i.relaysSignals()
	i.stream(r, i.token(i.tenant.ID, tenant.ClassReceiver), ssf.AccountDisabled)
	reached, over := make(chan struct{}), make(chan struct{})
	first := true
	r.answerWith(func(http.ResponseWriter, set) bool {
		if first {
			first = false
			close(reached)
			<-over // the worker is killed before it is answered, but the receiver has the token
		}
		return false
	})
	private := "LEAVER_SIGNALS_PRIVATE_RECEIVERS=true"
	worker := i.process([]string{"worker"}, "connectors: []\n", private)
	ada := i.createUser("ada@example.com")
	i.deactivate(ada)
	select {
	case <-reached:
	case <-time.After(30 * time.Second):
		t.Fatalf("nothing was pushed; logs:\n%s", i.logs)
	}
	if err := worker.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_, _ = worker.Process.Wait()
	close(over)
	i.process([]string{"worker"}, "connectors: []\n", private)
	stacktest.Eventually(t, time.Minute, "the token again", func() bool { return len(r.events(ada)) == 2 })
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.took[0].JTI != r.took[1].JTI {
		t.Errorf("sent again it is another: %s and %s", r.took[0].JTI, r.took[1].JTI)
	}
}

// TestKeys walks through a month of processes that start anew, each on the keys that
// the others have left.
func TestAKeySignsForAMonthAndItsSuccessorIsServedBeforeItSigns(t *testing.T) {
	i := installAPI(t)
	token := i.token(i.tenant.ID, tenant.ClassReceiver)
	created := i.must("POST", "/ssf/v1/streams", token, fmt.Sprintf(`{"events_requested":[%q]}`, ssf.AccountDisabled))
	poll := strings.TrimPrefix(created["delivery"].(map[string]any)["endpoint_url"].(string), i.url)
	i.deactivate(i.createUser("ada@example.com"))
	// signs is the key that a process signs with, and whether what it signed verifies by
	// the keys that another serves.
	signs := func(process, other *installation) string {
		t.Helper()
		for _, raw := range process.must("POST", poll, token, `{"returnImmediately":true}`)["sets"].(map[string]any) {
			parsed, err := jwt.ParseSigned(raw.(string), []jose.SignatureAlgorithm{jose.RS256})
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := openSET(other.url+"/ssf/v1/jwks.json", raw.(string)); !ok {
				t.Error("what one process signs does not verify by the keys of another")
			}
			return parsed.Headers[0].KeyID
		}
		t.Fatal("there is nothing to sign")
		return ""
	}
	served := func(process *installation) (ids []string) {
		t.Helper()
		for _, k := range process.must("GET", "/ssf/v1/jwks.json", "", "")["keys"].([]any) {
			ids = append(ids, k.(map[string]any)["kid"].(string))
		}
		return ids
	}
	age := func(key, by string) {
		t.Helper()
		i.sql(`update signing_keys set created_at = created_at - $2::interval where id = $1`, key, by)
	}
	first := signs(i.another(), i.another())
	if again := signs(i.another(), i.another()); again != first {
		t.Errorf("a second process signs with %s, want %s", again, first)
	}

	age(first, "29 days 23 hours")
	if still := signs(i.another(), i.another()); still != first {
		t.Errorf("before a month is over %s signs", still)
	}
	both := served(i.another())
	if len(both) != 2 || !slices.Contains(both, first) {
		t.Fatalf("an hour before it is over %v are served, want the first and its successor", both)
	}
	second := both[slices.IndexFunc(both, func(id string) bool { return id != first })]

	age(first, "2 hours")
	age(second, "2 hours")
	if now := signs(i.another(), i.another()); now != second {
		t.Errorf("after a month %s signs, want %s", now, second)
	}
	if ids := served(i.another()); !slices.Contains(ids, first) {
		t.Errorf("what the first key signed can be verified no more: %v", ids)
	}

	age(first, "30 days")
	if ids := served(i.another()); slices.Contains(ids, first) {
		t.Errorf("the first key is served for ever: %v", ids)
	}
}

func TestTwoProcessesThatSignForTheFirstTimeAreBothVerified(t *testing.T) {
	i := installAPI(t)
	token := i.token(i.tenant.ID, tenant.ClassReceiver)
	created := i.must("POST", "/ssf/v1/streams", token, fmt.Sprintf(`{"events_requested":[%q]}`, ssf.AccountDisabled))
	poll := strings.TrimPrefix(created["delivery"].(map[string]any)["endpoint_url"].(string), i.url)
	i.deactivate(i.createUser("ada@example.com"))
	processes := []*installation{i.another(), i.another(), i.another()}
	var all sync.WaitGroup
	tokens := make([]string, len(processes))
	for n, process := range processes {
		all.Go(func() {
			for _, raw := range process.must("POST", poll, token, `{"returnImmediately":true}`)["sets"].(map[string]any) {
				tokens[n] = raw.(string)
			}
		})
	}
	all.Wait()
	jwks := i.another().url + "/ssf/v1/jwks.json"
	for n, raw := range tokens {
		if _, ok := openSET(jwks, raw); !ok {
			t.Errorf("what process %d has signed does not verify", n)
		}
	}
}
