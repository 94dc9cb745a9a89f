// Package iam is a server with the calls of AWS IAM and STS about access keys, as AWS documents them:
// https://docs.aws.amazon.com/IAM/latest/APIReference/ and https://docs.aws.amazon.com/STS/latest/APIReference/.
// It verifies signatures (SigV4), and denies what an inline policy denies by aws:TokenIssueTime.
package iam

import (
	"crypto/rand"
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Account is the id of the server's account.
const Account = "123456789012"

// Server is a running server.
type Server struct {
	URL string
	// Fail, if set, is asked before each call for an error code to answer, with its status; 0 for none.
	Fail func(action string) (code string, status int)

	http  *httptest.Server
	mu    sync.Mutex
	users map[string]*user
	keys  map[string]*Key
	lags  int // number of uses that a new key is still unknown for
	late  int // number of uses that a deleted key still works for
	ended map[string]*Key
	calls []string
}

type user struct {
	policies map[string]string
}

// Key is an access key, or the temporary key of a session.
type Key struct {
	ID, Secret string
	User       string
	Issued     time.Time // of a session; zero for an access key
	created    time.Time
	active     bool
	used       *time.Time
	lag        int
}

// Start starts a server.
func Start() *Server {
	s := &Server{users: make(map[string]*user), keys: make(map[string]*Key), ended: make(map[string]*Key)}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = s.http.URL
	return s
}

// Close stops the server.
func (s *Server) Close() { s.http.Close() }

// AddUser adds a user with an access key.
func (s *Server) AddUser(name string) Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[name] = &user{policies: make(map[string]string)}
	return *s.add(name)
}

// add adds an access key to a user.
func (s *Server) add(name string) *Key {
	k := &Key{
		ID: "AKIA" + rand.Text()[:16], Secret: rand.Text(), User: name, created: time.Now(), active: true, lag: s.lags,
	}
	s.keys[k.ID] = k
	return k
}

// Lag makes keys that are created later unknown at their first uses, as IAM is eventually consistent.
func (s *Server) Lag(uses int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lags = uses
}

// LagDeletions makes keys that are deleted later work for their next uses.
func (s *Server) LagDeletions(uses int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = uses
}

// Calls returns the actions that were called and not only read, in order.
func (s *Server) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.calls...)
}

// Keys returns the number of access keys of a user.
func (s *Server) Keys(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count(name)
}

func (s *Server) count(name string) (n int) {
	for _, k := range s.keys {
		if k.User == name && k.Issued.IsZero() {
			n++
		}
	}
	return n
}

// Session opens a session with an access key, as GetSessionToken does.
func (s *Server) Session(of Key) Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &Key{ID: "ASIA" + rand.Text()[:16], Secret: rand.Text(), User: of.User, Issued: time.Now(), active: true}
	s.keys[k.ID] = k
	return *k
}

// Works reports whether a key may call an API that is not exempt from policies.
func (s *Server) Works(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[id]
	return k != nil && k.active && !s.denied(k)
}

// denied evaluates the inline policies of a key's user. Only one form of statement is known.
func (s *Server) denied(k *Key) bool {
	for _, document := range s.users[k.User].policies {
		var policy struct {
			Statement struct {
				Effect, Action, Resource string
				Condition                struct{ DateLessThan map[string]time.Time }
			}
		}
		if json.Unmarshal([]byte(document), &policy) != nil {
			continue
		}
		before, conditional := policy.Statement.Condition.DateLessThan["aws:TokenIssueTime"]
		if policy.Statement.Effect == "Deny" && policy.Statement.Action == "*" && conditional &&
			!k.Issued.IsZero() && k.Issued.Before(before) { // without the key in the request, the condition is false
			return true
		}
	}
	return false
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	form, malformed := url.ParseQuery(string(body))
	if err != nil || malformed != nil {
		fault(w, "MalformedQueryString", http.StatusBadRequest)
		return
	}
	action := form.Get("Action")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Fail != nil {
		if code, status := s.Fail(action); code != "" {
			fault(w, code, status)
			return
		}
	}
	caller, code := s.authenticate(r, body)
	if code != "" {
		fault(w, code, http.StatusForbidden)
		return
	}
	if action == "GetCallerIdentity" { // cannot be denied
		reply(w, action, "<Arn>arn:aws:iam::"+Account+":user/team/"+caller.User+"</Arn><Account>"+Account+"</Account>")
		return
	}
	if caller.User != "leaver" {
		fault(w, "AccessDenied", http.StatusForbidden)
		return
	}
	if !strings.HasPrefix(action, "Get") && !strings.HasPrefix(action, "List") {
		s.calls = append(s.calls, action)
	}
	s.administer(w, action, form)
}

func reply(w http.ResponseWriter, action, result string) {
	w.Header().Set("Content-Type", "text/xml")
	_, _ = w.Write([]byte("<" + action + "Response><" + action + "Result>" + result + "</" + action + "Result>" +
		"<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></" + action + "Response>"))
}

func fault(w http.ResponseWriter, code string, status int) {
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	kind := "Sender"
	if status >= http.StatusInternalServerError {
		kind = "Receiver"
	}
	_, _ = w.Write([]byte("<ErrorResponse><Error><Type>" + kind + "</Type><Code>" + code +
		"</Code><Message>refused</Message></Error><RequestId>1</RequestId></ErrorResponse>"))
}

func text(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
