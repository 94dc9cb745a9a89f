package connectors

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
	"go.opentelemetry.io/otel/trace"
)

const (
	// httpTimeout bounds one exchange. An attempt makes several.
	httpTimeout = 15 * time.Second
	// MaxBody is the maximum size of a response body, in bytes.
	MaxBody = 64 << 10
	// maxRetryAfter bounds the delay that a downstream may request: a wrong date must
	// not delay a revocation beyond the cascade's deadline.
	maxRetryAfter = time.Hour
)

// NewHTTPClient returns the client for downstream APIs. It follows no redirects: a
// compromised downstream must not send requests, with the credentials they carry, to an
// address of its choice.
func NewHTTPClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 16
	return &http.Client{
		Timeout:       httpTimeout,
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Exchange sends the request and returns the response with its body, of at most [MaxBody]
// bytes. Its errors are retryable, and quote neither the URL's query nor anything that the
// downstream has sent.
func Exchange(client *http.Client, req *http.Request) (*http.Response, []byte, error) {
	return ExchangeUpTo(MaxBody, client, req)
}

// ExchangeUpTo is [Exchange] for bodies of at most limit bytes.
func ExchangeUpTo(limit int64, client *http.Client, req *http.Request) (*http.Response, []byte, error) {
	span := startSpan(req)
	defer span.End()
	resp, err := client.Do(req)
	if err != nil {
		span.SetStatus(codes.Error, "")
		return nil, nil, Retryable("%s %s: %s", req.Method, req.URL.Host, TransportReason(err))
	}
	span.SetAttributes(semconv.HTTPResponseStatusCode(resp.StatusCode))
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, nil, Retryable("%s %s: read the response: %s", req.Method, req.URL.Host, TransportReason(err))
	}
	if int64(len(body)) > limit {
		return nil, nil, Retryable("%s %s: the response body exceeds %d bytes", req.Method, req.URL.Host, limit)
	}
	return resp, body, nil
}

// startSpan starts the span of a request to a downstream, if its context is traced. The downstream is not told, and
// the span has no path, which may name an account.
func startSpan(req *http.Request) trace.Span {
	tracer := trace.SpanFromContext(req.Context()).TracerProvider().Tracer("github.com/leaverhq/leaver")
	_, span := tracer.Start(req.Context(), req.Method, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		semconv.HTTPRequestMethodKey.String(req.Method), semconv.ServerAddress(req.URL.Hostname())))
	return span
}

// StatusError returns the error for an HTTP status that is not a success: retryable for
// throttling and server errors, permanent for everything else. code is the downstream's
// error code, or empty.
func StatusError(resp *http.Response, code string) *Error {
	what := fmt.Sprintf("%s returned %d", resp.Request.URL.Host, resp.StatusCode)
	if code != "" {
		what += " " + code
	}
	wait := parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	switch {
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode == http.StatusRequestTimeout,
		resp.StatusCode >= 500:
		return RetryableAfter(wait, "%s", what)
	case resp.StatusCode == http.StatusForbidden && wait > 0:
		return RetryableAfter(wait, "%s", what)
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return Permanent("%s: redirects are not followed: configure the final address", what)
	}
	return Permanent("%s", what)
}

// RetryDelay returns the delay that a response's Retry-After asks for, at most an hour; 0 for none.
func RetryDelay(header http.Header) time.Duration {
	return parseRetryAfter(header.Get("Retry-After"), time.Now())
}

// parseRetryAfter parses both forms of Retry-After (RFC 9110 section 10.2.3), and returns 0
// for an invalid value.
func parseRetryAfter(value string, now time.Time) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.Atoi(value); err == nil {
		wait = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		wait = at.Sub(now)
	}
	return max(0, min(wait, maxRetryAfter))
}

// errorCodes are the codes of an OAuth-style error that are copied to evidence: those of
// RFC 6749, 6750, 7009, 7591, 8628 and 9126, and the not_found of admin APIs.
var errorCodes = []string{
	"access_denied", "invalid_client", "invalid_grant", "invalid_request", "invalid_scope", "invalid_token",
	"insufficient_scope", "not_found", "server_error", "slow_down", "temporarily_unavailable", "unauthorized_client",
	"unsupported_grant_type", "unsupported_token_type",
}

// ErrorCode returns the "error" member of an OAuth-style JSON error if it is one of
// [errorCodes], and otherwise an empty string: free text could echo a secret, or mislead
// an auditor.
func ErrorCode(body []byte) string {
	var answer struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &answer) != nil || !slices.Contains(errorCodes, answer.Error) {
		return ""
	}
	return answer.Error
}
