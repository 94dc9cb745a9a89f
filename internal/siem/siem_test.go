package siem_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/siem"
	"github.com/leaverhq/leaver/internal/tenant"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

var acme = uuid.MustParse("019a0000-0000-7000-8000-00000000acee")

func chained(source, record string) evidence.Chained {
	return evidence.Chained{Entry: evidence.Entry{Sequence: 7, Source: source, Tenant: acme, Record: json.RawMessage(record)}}
}

// shown are the members of an event that the table compares.
type shown struct {
	Class, Activity, Severity, Status int
	Actor, User, Operation, Detail    string
}

func TestEventOf_MapsRecordsToClasses(t *testing.T) {
	const id, at = `"019a0000-0000-7000-8000-000000000001"`, `"at":"2026-11-29T22:00:00.5+00:00"`
	user := strings.Trim(id, `"`)
	for name, c := range map[string]struct {
		source, record string
		want           shown
	}{
		"a registration": {
			"credential_states", `{"item_id":` + id + `,"state":"live","reason":"","actor":"platform-token/1",` + at + `}`,
			shown{3001, 1, 1, 1, "platform-token/1", user, "", ""},
		},
		"a proven end": {
			"credential_states", `{"item_id":` + id + `,"state":"verified","reason":"",` + at + `}`,
			shown{3001, 6, 1, 1, "leaver", user, "", ""},
		},
		"an end that failed": {
			"credential_states", `{"item_id":` + id + `,"state":"failed","reason":"refused",` + at + `}`,
			shown{3001, 6, 4, 2, "leaver", user, "", "refused"},
		},
		"a probe": {
			"evidence", `{"item_id":` + id + `,"step":"probe-after","outcome":"dead","detail":"401",` + at + `}`,
			shown{6003, 2, 1, 1, "leaver", "", "probe-after", "dead: 401"},
		},
		"a revocation": {
			"evidence", `{"item_id":` + id + `,"step":"revoke","outcome":"done","detail":"",` + at + `}`,
			shown{6003, 4, 1, 1, "leaver", "", "revoke", "done"},
		},
		"an attempt that failed": {
			"evidence", `{"item_id":` + id + `,"step":"revoke","outcome":"failed","detail":"503",` + at + `}`,
			shown{6003, 4, 4, 2, "leaver", "", "revoke", "failed: 503"},
		},
		"an operator's act": {
			"acts", `{"verb":"waive","actor":"operator-token/1","reason":"INC-17",` + at + `}`,
			shown{6003, 99, 1, 1, "operator-token/1", "", "waive", "INC-17"},
		},
		"a leaver": {
			"cascade_histories", `{"archived_at":"2026-11-29T22:00:00.5+00:00","cascade":{"kind":"leaver","principal_id":` + id +
				`,"outcome":"completed","actor":"scim-token/1"}}`,
			shown{3001, 5, 1, 1, "scim-token/1", user, "", ""},
		},
		"a leaver whose cascade failed": {
			"cascade_histories", `{"archived_at":"2026-11-29T22:00:00.5+00:00","cascade":{"kind":"leaver","principal_id":` + id +
				`,"outcome":"failed","actor":"scim-token/1"}}`,
			shown{3001, 5, 4, 2, "scim-token/1", user, "", "failed"},
		},
		"a mover": {
			"cascade_histories", `{"archived_at":"2026-11-29T22:00:00.5+00:00","cascade":{"kind":"mover","principal_id":` + id +
				`,"outcome":"completed","actor":"scim-token/1"}}`,
			shown{6003, 99, 1, 1, "scim-token/1", user, "cascade.close", ""},
		},
		"a sign-in": {
			"admin_acts", `{"verb":"token.issue","actor":"operator-token/1","object":"x","before":null,"after":{"id":` + id + `,"class":"operator","sessionOf":` + id + `},` + at + `}`,
			shown{3002, 1, 1, 1, "operator-token/1", "operator-token/" + user, "", ""},
		},
		"a sign-out": {
			"admin_acts", `{"verb":"token.revoke","actor":"operator-token/1","object":"x","before":{"id":` + id + `,"class":"operator","sessionOf":` + id + `},"after":null,` + at + `}`,
			shown{3002, 2, 1, 1, "operator-token/1", "operator-token/" + user, "", ""},
		},
		"a sign-in that is refused": {
			"admin_acts", `{"verb":"sign-in.refuse","actor":"login/ada of https://idp","object":"ada of https://idp","before":null,"after":{"name":"Ada","reason":"no role"},` + at + `}`,
			shown{3002, 1, 4, 2, "login/ada of https://idp", "login/ada of https://idp", "", "no role"},
		},
		"another token": {
			"admin_acts", `{"verb":"token.issue","actor":"operator-token/1","object":"x","before":"x","after":{"id":` + id + `},` + at + `}`,
			shown{6003, 99, 1, 1, "operator-token/1", "", "token.issue", ""},
		},
		"rules": {
			"mappings", `{"version":2,"actor":"operator-token/1","created_at":"2026-11-29T22:00:00.5+00:00"}`,
			shown{6003, 3, 1, 1, "operator-token/1", "", "mapping.apply", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := siem.EventOf(chained(c.source, c.record))
			if err != nil {
				t.Fatal(err)
			}
			got := shown{Class: e.ClassUID, Activity: e.ActivityID, Severity: e.SeverityID, Status: e.StatusID, Detail: e.Detail}
			if e.Actor != nil {
				got.Actor = e.Actor.User.UID
			}
			if e.User != nil {
				got.User = e.User.UID
			}
			if e.API != nil {
				got.Operation = e.API.Operation
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if e.TypeUID != e.ClassUID*100+e.ActivityID || e.CategoryUID != e.ClassUID/1000 ||
				e.Time != time.Date(2026, 11, 29, 22, 0, 0, 5e8, time.UTC).UnixMilli() ||
				e.Metadata.UID != acme.String()+"/7" || string(e.Unmapped) != c.record {
				t.Errorf("the event is %+v", e)
			}
		})
	}
	if _, err := siem.EventOf(chained("acts", `[]`)); err == nil {
		t.Error("EventOf accepts a record that is not an object")
	}
}

// collector is a SIEM that records the uid of each event, and fails at first.
type collector struct {
	mu     sync.Mutex
	fails  int
	uids   []string
	bodies []string
	header http.Header
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.header = r.Header
	if c.fails > 0 {
		c.fails--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	c.bodies = append(c.bodies, string(raw))
	for decoder := json.NewDecoder(strings.NewReader(string(raw))); ; {
		var e struct {
			Metadata siem.Metadata
			Event    struct{ Metadata siem.Metadata }
		}
		if err := decoder.Decode(&e); err != nil {
			return
		}
		c.uids = append(c.uids, e.Metadata.UID+e.Event.Metadata.UID)
	}
}

// chain returns a chain with n acts of a tenant, after the one that created it.
func chain(t *testing.T, n int) (chain *evidence.Chain, follow func(siem.Sink) *siem.Follower, of uuid.UUID, more func(int)) {
	t.Helper()
	db, at := stacktest.Open(t)
	sealer := stacktest.NewSealer(t)
	acme, err := tenant.NewStore(db).Create(t.Context(), "acme", tenant.ProfileDefault)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := pgx.Connect(t.Context(), at.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = owner.Close(context.Background()) })
	chain = evidence.NewChain(db, sealer)
	more = func(n int) {
		for range n {
			if _, err := owner.Exec(t.Context(), `insert into acts (tenant_id, event_id, actor, verb, reason)
				values ($1, $2, 'ada', 'retry', 'x')`, acme.ID, uuid.New()); err != nil {
				t.Fatal(err)
			}
		}
		if err := chain.ExtendAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	more(n)
	follow = func(s siem.Sink) *siem.Follower { return siem.NewFollower(db, chain, s, "test") }
	return chain, follow, acme.ID, more
}

func open(t *testing.T, c config.Audit) siem.Sink {
	t.Helper()
	sink, err := siem.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sink.Close() })
	return sink
}

// TestFollower_SendsInOrderAndAgainAfterAFailure has a SIEM that is down at first: the chain waits, and nothing is lost.
func TestFollower_SendsInOrderAndAgainAfterAFailure(t *testing.T) {
	_, follow, of, more := chain(t, 250)
	c := &collector{fails: 1}
	server := httptest.NewServer(c)
	defer server.Close()
	t.Setenv("SIEM_TOKEN", "Splunk secret")
	f := follow(open(t, config.Audit{Sink: "splunk", Address: server.URL, Authorization: "env:SIEM_TOKEN"}))
	if _, err := f.SendDue(t.Context()); err == nil {
		t.Error("SendDue reports no error while the SIEM is down")
	}
	health, err := f.Health(t.Context())
	if err != nil || health.Pending != 251 || health.FailedAt == nil || strings.Contains(health.Failure, "secret") {
		t.Errorf("%+v, %v; want 251 pending and a failure", health, err)
	}
	more(1)
	stacktest.Eventually(t, time.Minute, "the rest", func() bool {
		if _, err := f.SendDue(t.Context()); err != nil {
			t.Fatal(err)
		}
		health, err := f.Health(t.Context())
		return err == nil && health.Pending == 0
	})
	var want []string
	for i := range 252 {
		want = append(want, fmt.Sprintf("%s/%d", of, i+1))
	}
	if diff := cmp.Diff(want, c.uids); diff != "" {
		t.Errorf("the events (-want +got):\n%s", diff)
	}
	if c.header.Get("Authorization") != "Splunk secret" || !strings.Contains(c.bodies[0], `"sourcetype":"ocsf"`) {
		t.Errorf("the request has the headers %v", c.header)
	}
}

func TestFollower_ConcurrentProcessesSendInOrder(t *testing.T) {
	_, follow, of, _ := chain(t, 300)
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := follow(open(t, config.Audit{Sink: "file", Address: path}))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for pending := int64(1); pending > 0; {
				_, err := f.SendDue(t.Context())
				var health siem.Health
				if err == nil {
					health, err = f.Health(t.Context())
				}
				if pending = health.Pending; err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	for i, line := range lines {
		var e siem.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Metadata.UID != fmt.Sprintf("%s/%d", of, i+1) {
			t.Fatalf("line %d is %s (%v)", i+1, e.Metadata.UID, err)
		}
	}
	if len(lines) != 301 {
		t.Errorf("%d lines, want 301", len(lines))
	}
}

// TestSyslog_FramesMessagesOverTLS reads RFC 5424 messages with octet counting from a TLS connection.
func TestSyslog_FramesMessagesOverTLS(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	certificate := server.TLS.Certificates[0]
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	server.Close()
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	received := make(chan []string, 1)
	go func() { received <- messages(listener, 2) }()
	event, err := siem.EventOf(chained("acts", `{"verb":"waive","actor":"ada","reason":"é\n","at":"2026-11-29T22:00:00Z"}`))
	if err != nil {
		t.Fatal(err)
	}
	untrusted := open(t, config.Audit{Sink: "syslog", Address: listener.Addr().String()})
	if err := untrusted.Send(t.Context(), []siem.Event{event}); err == nil || !strings.Contains(err.Error(), "TLS failed") {
		t.Errorf("an untrusted certificate: %v", err)
	}
	sink := open(t, config.Audit{Sink: "syslog", Address: listener.Addr().String(), CAFile: ca})
	if err := sink.Send(t.Context(), []siem.Event{event, event}); err != nil {
		t.Fatal(err)
	}
	got := <-received
	if len(got) != 2 || got[0] != got[1] || !strings.HasPrefix(got[0], "<110>1 2026-11-29T22:00:00.000Z ") ||
		!strings.Contains(got[0], " leaver - 6003 - {") {
		t.Errorf("the messages are %q", got)
	}
}

// TestSyslog_ResendsWhatAServerDidNotRead has a server that ends connections without reading them.
func TestSyslog_ResendsWhatAServerDidNotRead(t *testing.T) {
	a := stacktest.NewAuthority(t, "authority")
	a.Issue("collector", 2)
	pair, err := tls.LoadX509KeyPair(a.File("collector.pem"), a.File("collector.key"))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	received := make(chan []string, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		secured := conn.(*tls.Conn)
		_ = secured.Handshake()
		_ = secured.NetConn().(*net.TCPConn).SetLinger(0) // as a process that is killed
		_ = secured.NetConn().Close()
		received <- messages(listener, 2)
	}()
	_, follow, _, _ := chain(t, 1)
	follower := follow(open(t, config.Audit{Sink: "syslog", Address: listener.Addr().String(), CAFile: a.File("authority.pem")}))
	if n, err := follower.SendDue(t.Context()); n != 0 || err == nil {
		t.Errorf("sent %d, %v, want the error of the connection", n, err)
	}
	stacktest.Eventually(t, 30*time.Second, "the events, sent again", func() bool {
		_, _ = follower.SendDue(t.Context())
		return len(received) == 1
	})
	if got := <-received; len(got) != 2 {
		t.Errorf("received %d events, want 2", len(got))
	}
}

// messages reads n octet-counted messages from the first connection that completes a handshake.
func messages(listener net.Listener, n int) (all []string) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return all
		}
		in := bufio.NewReader(conn)
		for len(all) < n {
			count, err := in.ReadString(' ')
			if err != nil {
				break
			}
			size, err := strconv.Atoi(strings.TrimSpace(count))
			if err != nil {
				break
			}
			text := make([]byte, size)
			if _, err := io.ReadFull(in, text); err != nil {
				break
			}
			all = append(all, string(text))
		}
		if len(all) == n { // a connection that is closed before its end is read is reset
			_, _ = io.Copy(io.Discard, in)
		}
		_ = conn.Close()
		if len(all) == n {
			return all
		}
	}
}

func TestOpen_RefusesSettings(t *testing.T) {
	for name, c := range map[string]config.Audit{
		"an unknown sink":       {Sink: "kafka", Address: "x"},
		"no address":            {Sink: "file"},
		"an address alone":      {Address: "https://siem.example.com"},
		"http elsewhere":        {Sink: "https", Address: "http://siem.example.com"},
		"a secret in the query": {Sink: "https", Address: "https://siem.example.com/?token=x"},
		"a user in the URL":     {Sink: "splunk", Address: "https://u:p@siem.example.com"},
		"syslog without port":   {Sink: "syslog", Address: "siem.example.com"},
		"a secret in the file":  {Sink: "https", Address: "https://siem.example.com", Authorization: "Bearer x"},
		"no certificates":       {Sink: "syslog", Address: "siem.example.com:6514", CAFile: "siem_test.go"},
	} {
		if sink, err := siem.Open(c); err == nil {
			t.Errorf("%s is accepted: %T", name, sink)
		}
	}
	if sink, err := siem.Open(config.Audit{}); sink != nil || err != nil {
		t.Errorf("without a sink: %v, %v", sink, err)
	}
}
