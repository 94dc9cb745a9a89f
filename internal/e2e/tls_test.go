package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leaverhq/leaver/internal/app"
	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// authority issues certificates into a folder.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue(name, 1)
	return a
}

// issue writes a certificate of 127.0.0.1 as NAME.pem and its key as NAME.key.
func (a *authority) issue(name string, serial int64) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		template.IsCA, template.KeyUsage, parent, signer = true, x509.KeyUsageCertSign, template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(a.file(file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return cert, key
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// get asks for a path with the certificate of a name, or without one.
func (a *authority) get(url, name string) (status int, serial *big.Int, body string, err error) {
	a.t.Helper()
	settings := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	settings.RootCAs.AddCert(a.cert)
	if name != "" {
		pair, err := tls.LoadX509KeyPair(a.file(name+".pem"), a.file(name+".key"))
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
	settings.RootCAs.AddCert(a.cert)
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
		TLSCertFile: a.file("server.pem"), TLSKeyFile: a.file("server.key"), ClientCAFile: a.file("authority.pem"),
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
	a.issue("server", 2)
	a.issue("idp", 3)
	other.issue("intruder", 4)
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
	other.cert = a.cert // trust the server, and present a certificate of another authority
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
	a.issue("server", 2)
	i := installAPI(t)
	url, _ := a.serveTLS(i)
	serves := func(want int64) func() bool {
		return func() bool {
			_, serial, _, err := a.get(url+"/livez", "")
			return err == nil && serial.Int64() == want
		}
	}
	stacktest.Eventually(t, 10*time.Second, "the first certificate", serves(2))
	a.issue("server", 3)
	stacktest.Eventually(t, 10*time.Second, "the renewed certificate", serves(3))
	if err := os.WriteFile(a.file("server.pem"), nil, 0o600); err != nil {
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
	a.issue("server", 2)
	cfg := newConfig(t)
	pair := config.Serve{TLSCertFile: a.file("server.pem"), TLSKeyFile: a.file("server.key")}
	keyOfOther, missing := pair, pair
	keyOfOther.TLSKeyFile = a.file("authority.key")
	missing.ClientCAFile = a.file("missing.pem")
	for want, serve := range map[string]config.Serve{
		"set both serve.tls_cert_file and serve.tls_key_file":                         {TLSCertFile: pair.TLSCertFile},
		"set both serve.tls_cert_file and serve.tls_key_file: TLS needs the two":      {ClientCAFile: a.file("authority.pem")},
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
