package scim

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/leaverhq/leaver/scim/schema"
)

const (
	maxBody = 1 << 20 // bytes
	// maxGroupBody bounds the body of a group in bytes: 50,000 members with names and URLs.
	maxGroupBody = 16 << 20
)

// readObject reads a request's JSON object of at most maxBody bytes. See [parseObject] for
// what else is rejected.
func (s *Server) readObject(w http.ResponseWriter, r *http.Request) (map[string]any, error) {
	return s.readUpTo(w, r, maxBody)
}

// readUpTo is readObject with the limit in bytes. A body over maxBody waits for a slot of
// s.large and holds it until the request ends.
func (s *Server) readUpTo(w http.ResponseWriter, r *http.Request, limit int64) (map[string]any, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		w.Header().Set("Accept-Encoding", "identity")
		return nil, failure(http.StatusUnsupportedMediaType,
			"Content-Encoding "+schema.Clip(encoding)+" is not supported: send the body uncompressed")
	}
	if header := r.Header.Get("Content-Type"); header != "" {
		media, _, err := mime.ParseMediaType(header)
		if err != nil || (media != contentType && media != "application/json") {
			return nil, failure(http.StatusUnsupportedMediaType,
				"Content-Type must be "+contentType+" or application/json, got "+schema.Clip(header))
		}
	}
	stream := http.MaxBytesReader(w, r.Body, limit)
	body, err := io.ReadAll(io.LimitReader(stream, maxBody))
	if err == nil && len(body) == maxBody && limit > maxBody {
		if err := s.large.take(r.Context(), sessionOf(r).Tenant.ID); err != nil {
			return nil, err
		}
	}
	if err == nil && len(body) == maxBody {
		var rest []byte
		rest, err = io.ReadAll(stream)
		body = append(body, rest...)
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, failure(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body must be at most %d MiB", limit>>20))
	}
	if err != nil {
		return nil, badRequest(schema.InvalidSyntax, "failed to read the body: send the request again")
	}
	return schema.ParseObject(body)
}

// wantMessage returns an error if the body's schemas name another message. It accepts a
// body without schemas, which some clients send.
func wantMessage(body map[string]any, urn string) error {
	for name, value := range body {
		if !strings.EqualFold(name, "schemas") {
			continue
		}
		list := schema.ListOf(value)
		if len(list) > 0 && !slices.ContainsFunc(list, func(v any) bool {
			text, ok := v.(string)
			return ok && strings.EqualFold(text, urn)
		}) {
			return badRequest(schema.InvalidSyntax, "schemas must contain %s", urn)
		}
	}
	return nil
}
