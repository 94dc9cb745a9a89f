package stacktest

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority issues certificates into a folder.
type Authority struct {
	t    testing.TB
	dir  string
	key  *ecdsa.PrivateKey
	Cert *x509.Certificate
}

// NewAuthority makes an authority whose certificate is in the file NAME.pem.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{t: t, dir: t.TempDir()}
	a.Cert, a.key = a.issue(name, 1)
	return a
}

// File returns the path of a certificate NAME.pem, or of its key NAME.key.
func (a *Authority) File(name string) string { return filepath.Join(a.dir, name) }

// Issue writes a certificate of 127.0.0.1, for servers and clients, as NAME.pem and its key as NAME.key.
func (a *Authority) Issue(name string, serial int64) {
	a.t.Helper()
	a.issue(name, serial)
}

func (a *Authority) issue(name string, serial int64) (*x509.Certificate, *ecdsa.PrivateKey) {
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
	parent, signer := a.Cert, a.key
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
		if err := os.WriteFile(a.File(file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return cert, key
}

// Guard serves a server by TLS to clients that have a certificate of the authority, and returns the address. Its own
// certificate is "server". It also answers PostgreSQL's clients, which ask for TLS before they speak it.
func (a *Authority) Guard(network, server string) (address string) {
	a.t.Helper()
	a.Issue("server", 2)
	pair, err := tls.LoadX509KeyPair(a.File("server.pem"), a.File("server.key"))
	if err != nil {
		a.t.Fatal(err)
	}
	settings := &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: x509.NewCertPool(), NextProtos: []string{"h2", "postgresql"},
	}
	settings.ClientCAs.AddCert(a.Cert)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go pass(conn, settings, network, server)
		}
	}()
	return listener.Addr().String()
}

// sslRequest is PostgreSQL's request for TLS: a length of 8 bytes, and a code.
var sslRequest = []byte{0, 0, 0, 8, 4, 210, 22, 47}

// pass passes a client's connection to the server after the handshake.
func pass(conn net.Conn, settings *tls.Config, network, server string) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	if first, err := in.Peek(len(sslRequest)); err == nil && bytes.Equal(first, sslRequest) {
		_, _ = in.Discard(len(sslRequest))
		if _, err := conn.Write([]byte{'S'}); err != nil {
			return
		}
	}
	client := tls.Server(buffered{conn, in}, settings)
	if client.Handshake() != nil {
		return
	}
	upstream, err := net.Dial(network, server)
	if err != nil {
		return
	}
	defer func() { _ = upstream.Close() }()
	ended := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, upstream}, {upstream, client}} {
		go func() { _, _ = io.Copy(way[0], way[1]); ended <- struct{}{} }()
	}
	<-ended
}

// buffered is a connection whose first bytes have been read.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

// Read implements net.Conn.
func (b buffered) Read(p []byte) (int, error) { return b.in.Read(p) }
