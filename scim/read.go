package scim

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
)

const maxBody = 1 << 20 // bytes

// readObject reads a request's JSON object of bounded size; see [parseObject] for what
// else is refused.
func readObject(w http.ResponseWriter, r *http.Request) (map[string]any, error) {
	if header := r.Header.Get("Content-Type"); header != "" {
		media, _, err := mime.ParseMediaType(header)
		if err != nil || (media != contentType && media != "application/json") {
			return nil, failure(http.StatusUnsupportedMediaType, "send "+contentType)
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, failure(http.StatusRequestEntityTooLarge, "the body is longer than 1 MiB")
	}
	if err != nil {
		return nil, badRequest(invalidSyntax, "the body could not be read")
	}
	return parseObject(body)
}

// wantMessage refuses a body that says it is another message. One that does not
// say what it is, as some clients do, is taken for what the endpoint takes.
func wantMessage(body map[string]any, urn string) error {
	for name, value := range body {
		if !strings.EqualFold(name, "schemas") {
			continue
		}
		list := listOf(value)
		if len(list) > 0 && !slices.ContainsFunc(list, func(v any) bool {
			text, ok := v.(string)
			return ok && strings.EqualFold(text, urn)
		}) {
			return badRequest(invalidSyntax, "want a message of schema %s", urn)
		}
	}
	return nil
}
