package ssf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"

	"github.com/leaverhq/leaver/activities/connectors"
)

const (
	pushTimeout = 10 * time.Second
	maxAnswer   = 16 << 10 // bytes
)

// Pusher sends tokens to receivers. Endpoints are the receivers' own word, so that it
// connects to no private address unless it may, whatever a name resolves to, and
// follows no redirect.
type Pusher struct{ client *http.Client }

// NewPusher returns a pusher; private lets receivers be at private addresses, and be
// reached without TLS.
func NewPusher(private bool) *Pusher {
	dialer := &net.Dialer{Timeout: pushTimeout}
	if !private {
		dialer.Control = refusePrivate()
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext, transport.Proxy = dialer.DialContext, nil
	return &Pusher{client: &http.Client{
		Timeout: pushTimeout, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// azureHost is the address of Azure's own host, which no registry lists.
var azureHost = netip.MustParsePrefix("168.63.129.16/32")

// refusePrivate returns an error for an address outside of the public Internet, whatever name
// led to it: the IANA special-purpose registries list them.
func refusePrivate() func(network, address string, c syscall.RawConn) error {
	return ssrf.New(ssrf.WithAnyPort(), ssrf.WithDeniedV4Prefixes(azureHost)).Safe
}

// CheckEndpoint says why receivers cannot be reached at an address, or nil.
func CheckEndpoint(endpoint string, private bool) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || len(endpoint) > 2048:
		return errors.New("endpoint_url is an https address without user and fragment")
	case u.Scheme != "https" && (!private || u.Scheme != "http"):
		return errors.New("endpoint_url needs https")
	}
	return nil
}

// UnreachableError says that a receiver did not take a token for now.
type UnreachableError struct {
	Reason     string
	RetryAfter time.Duration // 0: the receiver did not say
}

func (e *UnreachableError) Error() string { return e.Reason }

// Push sends one token (RFC 8935 section 2). A refusal is the receiver's last word on
// it. Error: [UnreachableError].
func (p *Pusher) Push(ctx context.Context, endpoint string, header connectors.Secret, set string) (*Refusal, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(set))
	if err != nil {
		return nil, &UnreachableError{Reason: "the endpoint is no address"}
	}
	req.Header.Set("Content-Type", "application/secevent+jwt")
	req.Header.Set("Accept", "application/json")
	if header != "" {
		req.Header.Set("Authorization", header.Reveal())
	}
	resp, err := p.client.Do(req)
	if err != nil {
		reason := connectors.TransportReason(err)
		if errors.Is(err, ssrf.ErrProhibitedIP) {
			reason = "the address is private"
		}
		return nil, &UnreachableError{Reason: req.URL.Host + ": " + reason}
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // the status says it all
	return answerOf(resp, body)
}

// answerOf reads what a receiver said.
func answerOf(resp *http.Response, body []byte) (*Refusal, error) {
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil, nil //nolint:nilnil // no refusal
	}
	said := fmt.Sprintf("%s answered %d", resp.Request.URL.Host, resp.StatusCode)
	if resp.StatusCode != http.StatusBadRequest {
		return nil, &UnreachableError{Reason: said, RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	}
	var refusal Refusal
	if json.Unmarshal(body, &refusal) != nil || refusal.Err == "" {
		refusal = Refusal{Err: "invalid_request", Description: said + " without saying why"}
	}
	// Who we are can be put right, and keys are fetched anew: then the token is good.
	if slices.Contains([]string{"authentication_failed", "access_denied", "invalid_key"}, refusal.Err) {
		return nil, &UnreachableError{Reason: said + " " + refusal.Err}
	}
	return &refusal, nil
}

// maxRetryAfter bounds what a receiver may ask for.
const maxRetryAfter = time.Hour

// retryAfter reads both forms of RFC 9110 section 10.2.3.
func retryAfter(value string) time.Duration {
	wait, err := time.ParseDuration(value + "s")
	if err != nil {
		at, err := http.ParseTime(value)
		if err != nil {
			return 0
		}
		wait = time.Until(at)
	}
	return max(0, min(wait, maxRetryAfter))
}
