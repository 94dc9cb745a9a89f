package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/apiclient"
)

const clientTimeout = 90 * time.Second // longer than waitStep

// client calls the API as an operator. Its errors have exit codes.
type client struct {
	*apiclient.Client
	// lines are the lines of the imported file, which errors quote.
	lines [][]byte
}

// base returns the URL of the installation.
func (c *cli) base() string {
	base := cmp.Or(c.url, os.Getenv("LEAVER_URL"), "http://127.0.0.1:8080")
	return strings.TrimSuffix(base, "/")
}

func (c *cli) client() (*client, error) {
	token := os.Getenv("LEAVER_TOKEN")
	if c.tokenFile != "" {
		raw, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return nil, coded(exitUsage, "read the token: %w", err)
		}
		token = string(raw)
	}
	if token == "" {
		if path, err := sessionFile(); err == nil {
			raw, _ := os.ReadFile(path) // without it there is no session
			if of, session, ok := strings.Cut(string(raw), "\n"); ok && of == c.base() {
				token = session
			}
		}
	}
	if token = strings.TrimSpace(token); token == "" {
		return nil, coded(exitAuth,
			"no token: run `leaver login`, or set LEAVER_TOKEN or --token-file (`leaver bootstrap` issues the first token)")
	}
	transport, err := httpClient()
	if err != nil {
		return nil, err
	}
	return &client{Client: &apiclient.Client{
		Base: c.base() + api.BasePath, Token: token, HTTP: transport,
	}}, nil
}

// httpClient returns the client of the API. LEAVER_CA_FILE names authorities besides the system's, LEAVER_CERT_FILE and
// LEAVER_KEY_FILE the certificate that the API requires with serve.client_ca_file.
func httpClient() (*http.Client, error) {
	settings := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := os.Getenv("LEAVER_CA_FILE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, coded(exitUsage, "LEAVER_CA_FILE: %w", err)
		}
		if settings.RootCAs, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("read the system's certificates: %w", err)
		}
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, coded(exitUsage, "LEAVER_CA_FILE: %s has no PEM certificate", file)
		}
	}
	if file := os.Getenv("LEAVER_CERT_FILE"); file != "" {
		own, err := tls.LoadX509KeyPair(file, os.Getenv("LEAVER_KEY_FILE"))
		if err != nil {
			return nil, coded(exitUsage, "LEAVER_CERT_FILE and LEAVER_KEY_FILE: %w", err)
		}
		settings.Certificates = []tls.Certificate{own}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = settings
	return &http.Client{Timeout: clientTimeout, Transport: transport}, nil
}

// all is [apiclient.All] with exit codes.
func all[T any](ctx context.Context, cl *client, path string, query url.Values, limit int) ([]T, error) {
	items, err := apiclient.All[T](ctx, cl.Client, path, query, limit)
	return items, cl.coded(err)
}

// do is [apiclient.Client.Do] with exit codes.
func (cl *client) do(ctx context.Context, method, path string, body, out any) error {
	return cl.coded(cl.Do(ctx, method, path, body, out))
}

// send is [apiclient.Client.Send] with exit codes.
func (cl *client) send(ctx context.Context, method, path, contentType string, payload io.Reader, out any) error {
	return cl.coded(cl.Send(ctx, method, path, contentType, payload, out))
}

// coded returns the error of a call with its exit code.
func (cl *client) coded(err error) error {
	var refused *apiclient.RefusalError
	var unreachable *url.Error
	switch {
	case errors.As(err, &unreachable) && unreachable.Op == "parse":
		return coded(exitUsage, "%w", err)
	case errors.As(err, &unreachable):
		return fmt.Errorf("%w; check --url, and that `leaver serve` is running", err)
	case !errors.As(err, &refused):
		return err
	}
	detail := refused.Detail
	for _, e := range refused.Lines {
		detail += fmt.Sprintf("\n  line %d: %s%s", e.Line, e.Detail, cl.quote(e.Line))
	}
	switch refused.Status {
	case http.StatusNotFound:
		return coded(exitNotFound, "%s", detail)
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return coded(exitUsage, "%s", detail)
	case http.StatusUnauthorized, http.StatusForbidden:
		return coded(exitAuth, "%s", detail)
	}
	return coded(exitError, "%s (%d)", detail, refused.Status)
}

// maxQuote bounds how much of a line an error quotes, in bytes.
const maxQuote = 200

var secretMember = regexp.MustCompile(`"secret"\s*:\s*"(?:[^"\\]|\\.)*"`)

// quote returns a line of the imported file, without its secret.
func (cl *client) quote(line int) string {
	if line < 1 || line > len(cl.lines) {
		return ""
	}
	text := secretMember.ReplaceAllString(string(cl.lines[line-1]), `"secret":"…"`)
	if strings.Contains(text, `"secret"`) && !secretMember.MatchString(text) {
		return "" // malformed: the secret cannot be located
	}
	if len(text) > maxQuote {
		text = strings.ToValidUTF8(text[:maxQuote], "") + "…"
	}
	return "\n    " + text
}
