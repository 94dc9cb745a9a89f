package connectors_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
		"an untrusted certificate": {secure.URL, "TLS failed: the certificate is of an unknown authority"},
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

// TestReason_NamesWhyTLSFailed covers a server whose certificate is of a trusted authority.
func TestReason_NamesWhyTLSFailed(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	for _, c := range []struct {
		want    string
		spoiled func(*tls.Config)
	}{
		{"TLS failed: the certificate is for another host name", func(c *tls.Config) { c.ServerName = "keys.example.net" }},
		{"TLS failed: the certificate has expired, or the clock is wrong", func(c *tls.Config) {
			c.Time = func() time.Time { return server.Certificate().NotAfter.Add(time.Hour) }
		}},
		{"TLS failed: the certificate has expired, or the clock is wrong", func(c *tls.Config) {
			c.Time = func() time.Time { return server.Certificate().NotBefore.Add(-time.Hour) }
		}},
		{"TLS failed: the peer refuses the client's certificate or the protocol version", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }},
	} {
		config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		config.RootCAs.AddCert(server.Certificate())
		c.spoiled(config)
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			t.Fatalf("answered %s, want %q", resp.Status, c.want)
		}
		if got := connectors.TransportReason(err); got != c.want {
			t.Errorf("%q, want %q (of %v)", got, c.want, err)
		}
	}
}
