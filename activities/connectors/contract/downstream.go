package contract

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/leaverhq/leaver/activities/connectors"
)

// Closed returns an address that refuses connections until the test ends: its port is bound, so that no other server
// gets it, and nothing listens.
func Closed(t *testing.T) string {
	t.Helper()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(socket) })
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
}

// Silent returns an address that accepts connections and never answers.
func Silent(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

// Answer is one HTTP response of a downstream, and its expected classification.
type Answer struct {
	Name       string
	Status     int
	Header     http.Header
	Body       string
	Outcome    connectors.Outcome // of a success
	Permanent  bool
	RetryAfter bool
}

// Common returns the answers that every HTTP connector classifies in the same way.
func Common() []Answer {
	inAMinute := time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)
	return []Answer{
		{Name: "401", Status: http.StatusUnauthorized, Permanent: true},
		{Name: "403", Status: http.StatusForbidden, Permanent: true},
		{
			Name: "403 with Retry-After, a secondary limit", Status: http.StatusForbidden,
			Header: http.Header{"Retry-After": {"2"}}, RetryAfter: true,
		},
		{Name: "404, as from any proxy", Status: http.StatusNotFound, Permanent: true},
		{Name: "409", Status: http.StatusConflict, Permanent: true},
		{Name: "408", Status: http.StatusRequestTimeout},
		{
			Name: "429 with seconds", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"7"}},
			RetryAfter: true,
		},
		{
			Name: "429 with a date", Status: http.StatusTooManyRequests,
			Header: http.Header{"Retry-After": {inAMinute}}, RetryAfter: true,
		},
		{Name: "429 with nonsense", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"soon"}}},
		{Name: "500", Status: http.StatusInternalServerError},
		{
			Name: "500 that echoes the secret", Status: http.StatusInternalServerError,
			Body: `{"error":"` + Canary + `"}`,
		},
		{
			Name: "400 that echoes the secret", Status: http.StatusBadRequest,
			Body: `{"error":"` + Canary + `","error_description":"` + Canary + `"}`, Permanent: true,
		},
		{
			Name: "503 with Retry-After", Status: http.StatusServiceUnavailable,
			Header: http.Header{"Retry-After": {"1"}}, RetryAfter: true,
		},
		{Name: "a redirect to a private address", Status: http.StatusFound, Header: http.Header{
			"Location": {"http://169.254.169.254/"},
		}, Permanent: true},
		{Name: "a huge body", Status: http.StatusOK, Body: string(make([]byte, connectors.MaxBody+1))},
	}
}

// Canary is a secret that errors must not quote.
const Canary = "canary_s3cret_token"

// Reset returns an address that accepts a request and resets the connection.
func Reset(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1))
			_ = conn.(*net.TCPConn).SetLinger(0) // close with a reset
			_ = conn.Close()
		}
	}()
	return listener.Addr().String()
}

// RunFaults checks that network faults are retryable and that call obeys its deadline. call
// connects to the given address.
func RunFaults(t *testing.T, target connectors.Target, call func(ctx context.Context, address string) error) {
	for name, address := range map[string]string{"refused": Closed(t), "reset": Reset(t), "hanging": Silent(t)} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			wantRetryable(t, call(ctx, address), target)
		})
	}
}

// RedirectsLeadNowhere fails the test if a call follows a downstream's redirect, with the
// credentials that it carries.
func RedirectsLeadNowhere(t *testing.T, call func(url string) error) {
	t.Helper()
	reached := make(chan string, 1)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(
		_ http.ResponseWriter, r *http.Request,
	) {
		reached <- r.URL.Path
	}))
	defer elsewhere.Close()
	for _, status := range []int{
		http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect,
	} {
		server := httptest.NewServer(http.RedirectHandler(elsewhere.URL+"/stolen", status))
		err := call(server.URL)
		server.Close()
		if !connectors.IsPermanent(err) {
			t.Errorf("%d: %v; want a permanent refusal", status, err)
		}
	}
	select {
	case path := <-reached:
		t.Errorf("a redirect was followed to %s", path)
	default:
	}
}

// Check starts a downstream that returns the answer to every request, runs call with its
// URL, and checks the classification.
func (a Answer) Check(t *testing.T, target connectors.Target, call func(url string) (connectors.Answer, error)) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range a.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(a.Status)
		_, _ = w.Write([]byte(a.Body))
	}))
	defer server.Close()
	answer, err := call(server.URL)
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
		t.Errorf("%v: has a retry delay: %t, want %t", err, got, a.RetryAfter)
	}
	NoSecret(t, err, target)
}

// RunAnswers sends each answer to a connector that connect creates for the given URL, and
// checks its classification.
func RunAnswers(
	t *testing.T, answers []Answer, target connectors.Target,
	connect func(t *testing.T, url string) connectors.Connector,
) {
	for _, a := range answers {
		t.Run(a.Name, func(t *testing.T) {
			a.Check(
				t, target,
				func(url string) (connectors.Answer, error) { return end(t.Context(), connect(t, url), target) },
			)
		})
	}
}
