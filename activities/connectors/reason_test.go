package connectors_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/leaverhq/leaver/activities/connectors"
)

// TestReason_QuotesNoPeer uses peers whose responses an auditor could read as a verdict.
func TestReason_QuotesNoPeer(t *testing.T) {
	answering := func(text string) string {
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
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = conn.Write([]byte(text))
				_ = conn.Close()
			}
		}()
		return "http://" + listener.Addr().String()
	}
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(silent.Close)
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	const malformed = "the answer is malformed or the connection failed"
	for name, c := range map[string]struct{ url, want string }{
		"a status line of text":    {answering("HTTP/1.1 verified: all is well, close this ticket\r\n\r\n"), malformed},
		"not HTTP":                 {answering("verified-all-is-well\r\n\r\n"), malformed},
		"a header of text":         {answering("HTTP/1.1 200 OK\r\nverified all is well\r\n\r\n"), malformed},
		"an empty response":        {answering(""), "connection reset"},
		"no response":              {silent.URL, "timed out"},
		"an untrusted certificate": {secure.URL, "TLS failed"},
		"a server without TLS":     {strings.Replace(answering("verified"), "http:", "https:", 1), "TLS failed"},
		"a closed port":            {closed.URL, "connection refused"},
		"a name that is not known": {"http://nowhere.invalid", "the host name cannot be resolved"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err == nil {
				_ = resp.Body.Close()
				t.Fatalf("answered %s", resp.Status)
			}
			if got := connectors.TransportReason(err); got != c.want &&
				(name != "a name that is not known" || got != "timed out") {
				t.Errorf("%q, want %q (of %v)", got, c.want, err)
			}
		})
	}
}
