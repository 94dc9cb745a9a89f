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
	"sync"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/activities/connectors"
)

const (
	pushTimeout = 10 * time.Second
	maxAnswer   = 16 << 10 // bytes
)

// Pusher pushes tokens to receivers. Receivers choose their endpoints, so it follows no redirects and,
// unless permitted, does not connect to private addresses. It checks addresses after name resolution.
type Pusher struct {
	client *http.Client

	mu      sync.Mutex
	pushing map[uuid.UUID]int // streams that are pushed now, by tenant
}

// maxPushing bounds how many streams of one tenant a process pushes at a time: its slow receivers do
// not delay the events of other tenants.
const maxPushing = 4

// Begin reserves a push for a stream of a tenant. It returns false if too many are in progress.
func (p *Pusher) Begin(tenant uuid.UUID) (end func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pushing[tenant] >= maxPushing {
		return nil, false
	}
	p.pushing[tenant]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.pushing[tenant]--; p.pushing[tenant] == 0 {
			delete(p.pushing, tenant)
		}
	}, true
}

// NewPusher returns a pusher. If private is true, it permits receivers at private addresses and
// without TLS.
func NewPusher(private bool) *Pusher {
	dialer := &net.Dialer{Timeout: pushTimeout}
	if !private {
		dialer.Control = refusePrivate()
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext, transport.Proxy = dialer.DialContext, nil
	return &Pusher{pushing: make(map[uuid.UUID]int), client: &http.Client{
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

// CheckEndpoint returns an error if endpoint is not a valid push endpoint. If private is true, http is
// permitted.
func CheckEndpoint(endpoint string, private bool) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || len(endpoint) > 2048:
		return errors.New("endpoint_url must be an https URL of at most 2048 bytes, without user and fragment")
	case u.Scheme != "https" && (!private || u.Scheme != "http"):
		return fmt.Errorf("endpoint_url must use https, got %q", u.Scheme)
	}
	return nil
}

// UnreachableError is returned if a receiver did not accept a token and the push should be retried.
type UnreachableError struct {
	Reason     string
	RetryAfter time.Duration // 0: the receiver did not say
}

func (e *UnreachableError) Error() string { return e.Reason }

// Push sends one token (RFC 8935 section 2). A refusal is final: the token must not be sent again.
// Error: [UnreachableError].
func (p *Pusher) Push(ctx context.Context, endpoint string, header connectors.Secret, set string) (*Refusal, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(set))
	if err != nil {
		return nil, &UnreachableError{Reason: "the endpoint is not a valid URL"}
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
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // the status alone is sufficient
	return answerOf(resp, body)
}

// answerOf evaluates a receiver's response.
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
		refusal = Refusal{Err: "invalid_request", Description: said + " without an error code"}
	}
	// Operators can correct the authorization, and receivers fetch keys again: a retry may succeed.
	if slices.Contains([]string{"authentication_failed", "access_denied", "invalid_key"}, refusal.Err) {
		return nil, &UnreachableError{Reason: said + " " + refusal.Err}
	}
	return &refusal, nil
}

// maxRetryAfter limits the Retry-After of a receiver.
const maxRetryAfter = time.Hour

// retryAfter parses both forms of Retry-After (RFC 9110 section 10.2.3). It returns 0 for other values.
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
