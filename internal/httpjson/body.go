package httpjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
)

// DecodeLoosely reads a JSON object whose unknown members are ignored, as AuthZEN wants.
func DecodeLoosely(w http.ResponseWriter, r *http.Request, into any) error {
	switch {
	case r.Header.Get("Content-Type") == "":
		return Problem{Status: http.StatusBadRequest, Detail: "Content-Type must be application/json, got none"}
	case !isJSON(r):
		return Problem{Status: http.StatusUnsupportedMediaType, Detail: fmt.Sprintf(
			"Content-Type must be application/json, got %q", r.Header.Get("Content-Type"))}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		return unread(err)
	}
	trimmed := bytes.TrimLeft(raw, " \t\r\n")
	if len(trimmed) == 0 || trimmed[0] != '{' || !unambiguous(raw) || json.Unmarshal(raw, into) != nil {
		return Problem{
			Status: http.StatusBadRequest,
			Detail: "the body must be a JSON object with unique member names and with member types as specified",
		}
	}
	return nil
}

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

// unambiguous reports whether no object has duplicate member names, ignoring case: parsers differ
// in which duplicate they use. It does not check that raw is valid JSON.
func unambiguous(raw []byte) bool {
	var names [][]byte // of the open objects
	var first []int    // index of each open object's first name
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '{', '[':
			if first = append(first, len(names)); len(first) > maxNesting {
				return false
			}
		case '}', ']':
			if len(first) == 0 {
				return false
			}
			names, first = names[:first[len(first)-1]], first[:len(first)-1]
		case '"':
			text, end := stringAt(raw, i)
			i = end
			if rest := bytes.TrimLeft(raw[min(i+1, len(raw)):], " \t\r\n"); len(first) == 0 || len(rest) == 0 || rest[0] != ':' {
				continue // a value
			}
			// An escaped name could hide a duplicate.
			duplicate := func(n []byte) bool { return bytes.EqualFold(n, text) }
			if bytes.IndexByte(text, '\\') >= 0 || slices.ContainsFunc(names[first[len(first)-1]:], duplicate) {
				return false
			}
			names = append(names, text)
		}
	}
	return true
}

// stringAt returns the content of the JSON string at start, and the index of its closing quote.
func stringAt(raw []byte, start int) (text []byte, end int) {
	for i := start + 1; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			return raw[start+1 : i], i
		}
	}
	return raw[start+1:], len(raw)
}

// maxNesting limits the nesting depth of a body.
const maxNesting = 32

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
