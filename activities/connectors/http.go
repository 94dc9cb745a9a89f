package connectors

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

const (
	// httpTimeout bounds one exchange; an attempt has room for several.
	httpTimeout = 15 * time.Second
	// MaxBody bounds what is read of a downstream's answer, in bytes.
	MaxBody = 64 << 10
	// maxRetryAfter bounds what a downstream may ask for: a mistaken date must
	// not put a revocation off beyond the cascade's deadline.
	maxRetryAfter = time.Hour
)

// NewHTTPClient returns the client for downstream APIs. It follows no
// redirects: a compromised downstream must not lead requests, with the
// credentials they carry, to an address of its choice.
func NewHTTPClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 16
	return &http.Client{
		Timeout:       httpTimeout,
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Exchange sends the request and returns status, headers and at most [MaxBody]
// of the body. Its errors are retryable, and quote neither the URL's query nor anything
// that the downstream has sent.
func Exchange(client *http.Client, req *http.Request) (*http.Response, []byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, Retryable("%s %s: %s", req.Method, req.URL.Host, TransportReason(err))
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	if err != nil {
		return nil, nil, Retryable("%s %s: read the answer: %s", req.Method, req.URL.Host, TransportReason(err))
	}
	if len(body) > MaxBody {
		return nil, nil, Retryable("%s %s: the answer is longer than %d bytes", req.Method, req.URL.Host, MaxBody)
	}
	return resp, body, nil
}

// StatusError classifies an HTTP status that is no success: throttling and
// server errors pass by themselves, everything else needs somebody to act.
// code is the downstream's own error code, if it gave a well-formed one.
func StatusError(resp *http.Response, code string) *Error {
	what := fmt.Sprintf("%s answered %d", resp.Request.URL.Host, resp.StatusCode)
	if code != "" {
		what += " " + code
	}
	wait := parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	switch {
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusRequestTimeout, resp.StatusCode >= 500:
		return RetryableAfter(wait, "%s", what)
	case resp.StatusCode == http.StatusForbidden && wait > 0:
		return RetryableAfter(wait, "%s", what)
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return Permanent("%s: redirects are not followed; configure the final address", what)
	}
	return Permanent("%s", what)
}

// parseRetryAfter reads both forms of RFC 9110 section 10.2.3.
func parseRetryAfter(value string, now time.Time) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.Atoi(value); err == nil {
		wait = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return max(0, min(wait, maxRetryAfter))
}

// errorCodes are what an OAuth-style error may say in evidence: those of RFC 6749, 6750,
// 7009, 7591, 8628 and 9126, and what admin APIs say of what is not there.
var errorCodes = []string{
	"access_denied", "invalid_client", "invalid_grant", "invalid_request", "invalid_scope", "invalid_token", "insufficient_scope", "not_found",
	"server_error", "slow_down", "temporarily_unavailable", "unauthorized_client", "unsupported_grant_type", "unsupported_token_type",
}

// ErrorCode reads the "error" member of an OAuth-style JSON error, and returns
// it only if it is a code of a specification's: free text is the downstream's, which may
// echo a secret, or say whatever an auditor is to read.
func ErrorCode(body []byte) string {
	var answer struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &answer) != nil || !slices.Contains(errorCodes, answer.Error) {
		return ""
	}
	return answer.Error
}
