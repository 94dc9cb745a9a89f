package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/app"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
	"github.com/leaverhq/leaver/worker"
)

// authority asks and serves with the certificates that it issues.
type authority struct {
	*stacktest.Authority
	t *testing.T
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	return &authority{stacktest.NewAuthority(t, name), t}
}

// get asks for a path with the certificate of a name, or without one.
func (a *authority) get(url, name string) (status int, serial *big.Int, body string, err error) {
	a.t.Helper()
	settings := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	settings.RootCAs.AddCert(a.Cert)
	if name != "" {
		pair, err := tls.LoadX509KeyPair(a.File(name+".pem"), a.File(name+".key"))
		if err != nil {
			a.t.Fatal(err)
		}
		settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	transport := &http.Transport{TLSClientConfig: settings, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		return 0, nil, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.TLS.PeerCertificates[0].SerialNumber, string(raw), err
}

// preflight sends what browsers send before a request to another origin, which has no certificate.
func (a *authority) preflight(url string) (status int) {
	a.t.Helper()
	settings := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	settings.RootCAs.AddCert(a.Cert)
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodOptions, url+"/decode", nil)
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Access-Control-Request-Method", http.MethodPost)
	req.Header.Set("Origin", "https://temporal.example.com")
	transport := &http.Transport{TLSClientConfig: settings}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// serveTLS serves an installation with certificates of the authority, and returns the URLs of its API and codec server.
func (a *authority) serveTLS(i *installation) (api, codec string) {
	a.t.Helper()
	cfg := *i.cfg
	cfg.Codec.AllowedOrigins = []string{"https://temporal.example.com"}
	cfg.Serve = config.Serve{
		TLSCertFile: a.File("server.pem"), TLSKeyFile: a.File("server.key"), ClientCAFile: a.File("authority.pem"),
	}
	served, err := app.New(context.Background(), &cfg, slog.New(slog.NewJSONHandler(i.logs, nil)))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(served.Close)
	var listeners [2]net.Listener
	for n := range listeners {
		if listeners[n], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			a.t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- served.Serve(ctx, listeners[0], listeners[1]) }()
	a.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			a.t.Error(err)
		}
	})
	return "https://" + listeners[0].Addr().String(), "https://" + listeners[1].Addr().String()
}

// TestTLS_ClientsPresentACertificate asks with a certificate of the authority, without one, and with another authority's.
func TestTLS_ClientsPresentACertificate(t *testing.T) {
	a, other := newAuthority(t, "authority"), newAuthority(t, "authority")
	a.Issue("server", 2)
	a.Issue("idp", 3)
	other.Issue("intruder", 4)
	url, codec := a.serveTLS(installAPI(t))
	for _, request := range []struct {
		path, client string
		want         int
	}{
		{"/scim/v2/Users", "idp", http.StatusUnauthorized}, // it has no token
		{"/scim/v2/Users", "", http.StatusForbidden},
		{"/console/sign-in", "", http.StatusForbidden},
		{"/readyz?verbose", "", http.StatusForbidden},
		{"/livez", "", http.StatusOK}, // probes of an orchestrator have no certificate
		{"/readyz", "", http.StatusOK},
	} {
		status, _, body, err := a.get(url+request.path, request.client)
		if err != nil || status != request.want {
			t.Errorf("GET %s as %q answered %d %s, %v, want %d", request.path, request.client, status, body, err, request.want)
		}
	}
	if status := a.preflight(url); status != http.StatusForbidden {
		t.Errorf("a preflight of the API answered %d, want 403", status)
	}
	if status := a.preflight(codec); status != http.StatusNoContent {
		t.Errorf("a preflight of the codec server answered %d, want 204", status)
	}
	if status, _, _, err := a.get(codec+"/decode", ""); err != nil || status != http.StatusForbidden {
		t.Errorf("the codec server answered %d, %v without a certificate, want 403", status, err)
	}
	other.Cert = a.Cert // trust the server, and present a certificate of another authority
	if status, _, _, err := other.get(url+"/livez", "intruder"); err == nil {
		t.Errorf("a certificate of another authority was answered %d", status)
	}
	if resp, err := http.Get(strings.Replace(url, "https:", "http:", 1) + "/livez"); err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("plain HTTP was answered")
		}
	}
}

// TestTLS_RenewedCertificateIsServed renews the server's certificate, and then breaks it, while the server runs.
func TestTLS_RenewedCertificateIsServed(t *testing.T) {
	a := newAuthority(t, "authority")
	a.Issue("server", 2)
	i := installAPI(t)
	url, _ := a.serveTLS(i)
	serves := func(want int64) func() bool {
		return func() bool {
			_, serial, _, err := a.get(url+"/livez", "")
			return err == nil && serial.Int64() == want
		}
	}
	stacktest.Eventually(t, 10*time.Second, "the first certificate", serves(2))
	a.Issue("server", 3)
	stacktest.Eventually(t, 10*time.Second, "the renewed certificate", serves(3))
	if err := os.WriteFile(a.File("server.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stacktest.Eventually(t, 10*time.Second, "the last readable certificate", serves(3))
	stacktest.Eventually(t, 10*time.Second, "a warning", func() bool {
		return strings.Contains(i.logs.String(), "failed to read renewed certificates")
	})
}

// TestTLS_InvalidCertificatesAreRefusedAtStart opens installations whose certificates cannot be used.
func TestTLS_InvalidCertificatesAreRefusedAtStart(t *testing.T) {
	a := newAuthority(t, "authority")
	a.Issue("server", 2)
	cfg := newConfig(t)
	pair := config.Serve{TLSCertFile: a.File("server.pem"), TLSKeyFile: a.File("server.key")}
	keyOfOther, missing := pair, pair
	keyOfOther.TLSKeyFile = a.File("authority.key")
	missing.ClientCAFile = a.File("missing.pem")
	for want, serve := range map[string]config.Serve{
		"set both serve.tls_cert_file and serve.tls_key_file":                         {TLSCertFile: pair.TLSCertFile},
		"set both serve.tls_cert_file and serve.tls_key_file: TLS needs the two":      {ClientCAFile: a.File("authority.pem")},
		"serve.tls_cert_file and serve.tls_key_file: tls: private key does not match": keyOfOther,
		"serve.client_ca_file: open":                                                  missing,
	} {
		cfg.Serve = serve
		if opened, err := app.New(t.Context(), cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s…", serve, err, want)
			if err == nil {
				opened.Close()
			}
		}
	}
}

// TestTLS_DatabaseAndTemporalAskForCertificates ends a credential where PostgreSQL and Temporal serve only clients with
// a certificate.
func TestTLS_DatabaseAndTemporalAskForCertificates(t *testing.T) {
	a := newAuthority(t, "authority")
	a.Issue("leaver", 3)
	address := a.Guard("tcp", stacktest.Temporal(t).Address)
	t.Setenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH", a.File("authority.pem"))
	t.Setenv("TEMPORAL_TLS_CLIENT_CERT_PATH", a.File("leaver.pem"))
	t.Setenv("TEMPORAL_TLS_CLIENT_KEY_PATH", a.File("leaver.key"))
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()), func(c *config.Config) {
		c.Temporal.Address = address
		c.Database.URL = a.guardDatabase(c.Database.URL)
	})
	if _, err := worker.EnsureNamespace(t.Context(), i.cfg.Temporal); err != nil {
		t.Errorf("leaver migrate: %v", err)
	}
	ada := i.createUser("ada@example.com")
	key := i.hold(p, ada, "", "key")
	i.deactivate(ada)
	if c := i.closed(ada); c.Outcome != "completed" || i.state(key) != "verified" {
		t.Errorf("cascade %+v, and the key is %s; logs:\n%s", c, i.state(key), i.logs)
	}

	newAuthority(t, "other").replace(a)
	if _, err := worker.EnsureNamespace(t.Context(), i.cfg.Temporal); err == nil {
		t.Error("Temporal answered a certificate of another authority")
	}
	if conn, err := pgx.Connect(t.Context(), i.cfg.Database.URL); err == nil {
		_ = conn.Close(t.Context())
		t.Error("PostgreSQL answered a certificate of another authority")
	}
}

// replace puts a certificate of this authority in the place of the other's "leaver".
func (a *authority) replace(other *authority) {
	a.t.Helper()
	a.Issue("leaver", 2)
	for _, name := range []string{"leaver.pem", "leaver.key"} {
		if err := os.Rename(a.File(name), other.File(name)); err != nil {
			a.t.Fatal(err)
		}
	}
}

// guardDatabase returns the URL of a database by TLS.
func (a *authority) guardDatabase(appURL string) string {
	a.t.Helper()
	u, err := url.Parse(appURL)
	if err != nil {
		a.t.Fatal(err)
	}
	query := u.Query()
	u.Host = a.Guard("unix", filepath.Join(query.Get("host"), ".s.PGSQL.5432"))
	query.Del("host")
	for name, value := range map[string]string{
		"sslmode": "verify-full", "sslrootcert": a.File("authority.pem"), "sslcert": a.File("leaver.pem"), "sslkey": a.File("leaver.key"),
	} {
		query.Set(name, value)
	}
	u.RawQuery = query.Encode()
	return u.String()
}
