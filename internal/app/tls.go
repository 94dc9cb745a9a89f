package app

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// certificates are the server's certificate and the authority of its clients. They are read again when a file changes,
// since certificates are renewed while the process runs.
type certificates struct {
	cfg config.Serve
	log *slog.Logger

	mu      sync.Mutex
	read    []time.Time // when the files were modified
	current *tls.Config
}

// openCertificates reads the certificates that are configured; it returns nil if none are.
func openCertificates(cfg config.Serve, log *slog.Logger) (*certificates, error) {
	c := &certificates{cfg: cfg, log: log}
	switch {
	case cfg.TLSCertFile == "" && cfg.TLSKeyFile == "" && cfg.ClientCAFile == "":
		return nil, nil //nolint:nilnil // plain HTTP
	case cfg.TLSCertFile == "" || cfg.TLSKeyFile == "":
		return nil, errors.New("set both serve.tls_cert_file and serve.tls_key_file: TLS needs the two")
	}
	var err error
	c.read = c.modified()
	c.current, err = c.load()
	return c, err
}

func (c *certificates) load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(c.cfg.TLSCertFile, c.cfg.TLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("serve.tls_cert_file and serve.tls_key_file: %w", err)
	}
	loaded := &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"},
	}
	if c.cfg.ClientCAFile == "" {
		return loaded, nil
	}
	pem, err := os.ReadFile(c.cfg.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("serve.client_ca_file: %w", err)
	}
	loaded.ClientCAs, loaded.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
	if !loaded.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("serve.client_ca_file: %s has no PEM certificate", c.cfg.ClientCAFile)
	}
	return loaded, nil
}

// modified returns when the files were modified. A missing file has the zero time.
func (c *certificates) modified() (times []time.Time) {
	for _, name := range []string{c.cfg.TLSCertFile, c.cfg.TLSKeyFile, c.cfg.ClientCAFile} {
		var at time.Time
		if info, err := os.Stat(name); err == nil {
			at = info.ModTime()
		}
		times = append(times, at)
	}
	return times
}

// forClient returns the configuration of a connection. Files that cannot be read, such as half of a renewal, leave the
// last one in force.
func (c *certificates) forClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.modified()
	if slices.Equal(now, c.read) {
		return c.current, nil
	}
	c.read = now
	loaded, err := c.load()
	if err != nil {
		c.log.Warn("failed to read renewed certificates; the previous ones stay in use", "error", err)
		return c.current, nil
	}
	c.log.Info("read renewed certificates")
	c.current = loaded
	return loaded, nil
}

// isProbe reports whether a request is one of an orchestrator, which has no certificate.
func isProbe(r *http.Request) bool {
	plain := r.URL.RawQuery == "" && r.Header.Get("Authorization") == ""
	return plain && (r.URL.Path == "/livez" || r.URL.Path == "/readyz")
}

// isPreflight reports whether a request is a CORS preflight, which browsers send without a certificate.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

// secure makes a server require TLS and, if client_ca_file is set, a client's certificate for all requests that are not
// exempt. Connections that are open when an authority is removed stay open.
func (c *certificates) secure(server *http.Server, exempt func(r *http.Request) bool) {
	server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: c.forClient}
	if c.cfg.ClientCAFile == "" {
		return
	}
	next := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// net/http leaves r.TLS empty for a request by HTTP/2 whose scheme is http.
		if (r.TLS == nil || len(r.TLS.VerifiedChains) == 0) && !exempt(r) {
			httpjson.Fail(w, r, c.log, httpjson.Problem{
				Status: http.StatusForbidden, Detail: "present a certificate of an authority in serve.client_ca_file",
			})
			return
		}
		next.ServeHTTP(w, r)
	})
}
