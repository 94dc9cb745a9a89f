package httpjson

import (
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
)

// ExtendDeadlines lets a request take longer than the server's timeouts allow.
func ExtendDeadlines(w http.ResponseWriter, limit time.Duration) {
	until := time.Now().Add(limit)
	control := http.NewResponseController(w)
	_, _ = control.SetReadDeadline(until), control.SetWriteDeadline(until) // on error the server's timeouts apply
}

// isJSON reports whether the request's Content-Type is application/json.
func isJSON(r *http.Request) bool {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && media == "application/json"
}

// unread returns the problem for a body that could not be read: it is too long, or the connection
// broke.
func unread(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return Problem{
			Status: http.StatusRequestEntityTooLarge,
			Detail: fmt.Sprintf("the body is longer than %d KiB", tooLarge.Limit>>10),
		}
	}
	return Problem{Status: http.StatusBadRequest, Detail: "failed to read the body: send the request again"}
}

// HasControl reports whether a text contains a control character. PostgreSQL rejects U+0000; the
// others are rejected because names do not need them.
func HasControl(texts ...string) bool {
	return slices.ContainsFunc(texts, func(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) })
}

// BaseURL returns the base URL for clients: publicURL, or if it is empty the request's host.
func BaseURL(r *http.Request, publicURL string) string {
	switch {
	case publicURL != "":
		return strings.TrimSuffix(publicURL, "/")
	case r.TLS != nil:
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// PageURL returns the base URL for browsers: [BaseURL], by https unless the host is this machine or publicURL says
// otherwise, since a proxy ends TLS.
func PageURL(r *http.Request, publicURL string) string {
	base := BaseURL(r, publicURL)
	if rest, plain := strings.CutPrefix(base, "http://"); plain && publicURL == "" && !IsLoopback(r.Host) {
		return "https://" + rest
	}
	return base
}

// IsLoopback reports whether a host, with or without a port, is this machine.
func IsLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
