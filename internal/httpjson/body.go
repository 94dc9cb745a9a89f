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
	"time"
)

// DecodeLoosely reads a JSON object whose unknown members are ignored, as AuthZEN wants.
func DecodeLoosely(w http.ResponseWriter, r *http.Request, into any) error {
	switch {
	case r.Header.Get("Content-Type") == "":
		return Problem{Status: http.StatusBadRequest, Detail: "send application/json"}
	case !isJSON(r):
		return Problem{Status: http.StatusUnsupportedMediaType, Detail: "send application/json"}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		return unread(err)
	}
	if trimmed := bytes.TrimLeft(raw, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' || !unambiguous(raw) || json.Unmarshal(raw, into) != nil {
		return Problem{Status: http.StatusBadRequest, Detail: "want a JSON object, with no two members of one name, whose members have the types that the specification says"}
	}
	return nil
}

// ExtendDeadlines lets a request take longer than the server's timeouts allow.
func ExtendDeadlines(w http.ResponseWriter, limit time.Duration) {
	until := time.Now().Add(limit)
	control := http.NewResponseController(w)
	_, _ = control.SetReadDeadline(until), control.SetWriteDeadline(until) // if refused, the server cuts the request off
}

// isJSON reports whether a request says that its body is JSON.
func isJSON(r *http.Request) bool {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && media == "application/json"
}

// unread is the problem of a body that could not be read: it is too long, or the connection
// broke.
func unread(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return Problem{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("the body is longer than %d KiB", tooLarge.Limit>>10)}
	}
	return Problem{Status: http.StatusBadRequest, Detail: "failed to read the body: send the request again"}
}

// unambiguous tells whether no object has two members of one name, in whatever case:
// of two readers each could take another. What is no JSON is told elsewhere.
func unambiguous(raw []byte) bool {
	var names [][]byte // of the objects that are open
	var first []int    // where the names of each begin
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
			// A name needs no escapes.
			if bytes.IndexByte(text, '\\') >= 0 || slices.ContainsFunc(names[first[len(first)-1]:], func(n []byte) bool { return bytes.EqualFold(n, text) }) {
				return false
			}
			names = append(names, text)
		}
	}
	return true
}

// stringAt is what stands in the JSON string that begins there, and where it ends.
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

// maxNesting bounds how deep a body nests.
const maxNesting = 32
