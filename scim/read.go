package scim

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
)

const (
	maxBody  = 1 << 20 // bytes
	maxDepth = 32      // nested objects and arrays
)

// readObject reads a request's JSON object within limits that hold before
// anything is built of it: size, depth, no duplicate keys. Numbers stay as written.
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

func parseObject(body []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	value, err := parseValue(d, 0)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, badRequest(invalidSyntax, "the body is not a JSON object")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, badRequest(invalidSyntax, "something follows the JSON object")
	}
	return object, nil
}

func parseValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, badRequest(invalidSyntax, "the JSON is nested deeper than %d", maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return nil, badRequest(invalidSyntax, "the body is not valid JSON")
	}
	switch token {
	case json.Delim('{'):
		return parseMembers(d, depth)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			value, err := parseValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err := d.Token()
		return list, syntax(err)
	}
	return token, nil
}

func parseMembers(d *json.Decoder, depth int) (map[string]any, error) {
	object := make(map[string]any)
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, syntax(err)
		}
		name, ok := key.(string)
		if !ok {
			return nil, badRequest(invalidSyntax, "the body is not valid JSON")
		}
		if _, twice := object[name]; twice {
			return nil, badRequest(invalidSyntax, "a JSON object has the key %q twice", name)
		}
		if object[name], err = parseValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return object, syntax(err)
}

func syntax(err error) error {
	if err == nil {
		return nil
	}
	return badRequest(invalidSyntax, "the body is not valid JSON")
}
