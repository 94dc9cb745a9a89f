package contract

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Closed is an address where nobody listens.
func Closed(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// Silent is an address that takes connections and never answers.
func Silent(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

// Answer is one HTTP answer of a downstream, and how it is to be read.
type Answer struct {
	Name       string
	Status     int
	Header     http.Header
	Body       string
	Outcome    connectors.Outcome // of a success
	Permanent  bool
	RetryAfter bool
}

// RunAnswers sends each answer to a connector that connect makes for the given
// URL, and checks its classification.
func RunAnswers(t *testing.T, answers []Answer, target connectors.Target, connect func(t *testing.T, url string) connectors.Connector) {
	for _, a := range answers {
		t.Run(a.Name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for name, values := range a.Header {
					w.Header()[name] = values
				}
				w.WriteHeader(a.Status)
				_, _ = w.Write([]byte(a.Body))
			}))
			defer server.Close()
			answer, err := end(t.Context(), connect(t, server.URL), target)
			if a.Outcome != "" {
				if err != nil || answer.Outcome != a.Outcome {
					t.Fatalf("%+v, %v; want %s", answer, err, a.Outcome)
				}
				return
			}
			if err == nil {
				t.Fatalf("%+v; want an error", answer)
			}
			if got := connectors.IsPermanent(err); got != a.Permanent {
				t.Errorf("%v: permanent %t, want %t", err, got, a.Permanent)
			}
			if got := connectors.RetryAfter(err) > 0; got != a.RetryAfter {
				t.Errorf("%v: a wait is asked for: %t, want %t", err, got, a.RetryAfter)
			}
			NoSecret(t, err, target)
		})
	}
}
