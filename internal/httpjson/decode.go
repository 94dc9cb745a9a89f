package httpjson

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxBody bounds a request body that has no limit of its own, in bytes.
	MaxBody = 64 << 10
	// maxNesting bounds how deep objects and arrays nest.
	maxNesting = 32
)

// Decode reads a request's JSON object of at most [MaxBody]. Names are case-sensitive. An unknown
// or a duplicate member is an error.
func Decode(w http.ResponseWriter, r *http.Request, into any) error {
	return DecodeUpTo(w, r, MaxBody, into)
}

// DecodeUpTo is [Decode] with another limit, in bytes.
func DecodeUpTo(w http.ResponseWriter, r *http.Request, limit int64, into any) error {
	if r.Header.Get("Content-Type") != "" && !isJSON(r) {
		return notJSON(r)
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		return unread(err)
	}
	return DecodeStrict(raw, into)
}

// DecodeLoosely reads a request's JSON object of at most [MaxBody], and ignores unknown members.
// Names are case-sensitive. A duplicate member is an error.
func DecodeLoosely(w http.ResponseWriter, r *http.Request, into any) error {
	switch {
	case r.Header.Get("Content-Type") == "":
		return Problem{Status: http.StatusBadRequest, Detail: "Content-Type must be application/json, got none"}
	case !isJSON(r):
		return notJSON(r)
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		return unread(err)
	}
	return DecodeLoose(raw, into)
}

// DecodeStrict decodes one JSON object. An unknown or a duplicate member is an error.
func DecodeStrict(raw []byte, into any) error {
	return unmarshal(raw, into, json.RejectUnknownMembers(true))
}

// DecodeLoose decodes one JSON object, and ignores unknown members. A duplicate member is an error.
func DecodeLoose(raw []byte, into any) error { return unmarshal(raw, into) }

func notJSON(r *http.Request) error {
	return Problem{Status: http.StatusUnsupportedMediaType, Detail: fmt.Sprintf(
		"Content-Type must be application/json, got %q", r.Header.Get("Content-Type"))}
}

func unmarshal(raw []byte, into any, options ...json.Options) error {
	err := checkNesting(raw)
	if err == nil {
		err = json.Unmarshal(raw, into, options...)
	}
	if err == nil {
		return nil
	}
	bad := func(format string, args ...any) error {
		return Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(format, args...)}
	}
	var problem Problem
	var syntax *jsontext.SyntacticError
	var semantic *json.SemanticError
	switch {
	case errors.As(err, &problem):
		return problem
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntax):
		return bad("duplicate member %q", syntax.JSONPointer.LastToken())
	case errors.Is(err, json.ErrUnknownName) && errors.As(err, &semantic):
		return bad("unknown field %q: /v1/openapi.yaml lists the fields", semantic.JSONPointer.LastToken())
	case errors.As(err, &semantic):
		return bad("%s has the wrong type or format", nameOf(semantic.JSONPointer))
	case errors.As(err, &syntax):
		return bad("the body is not valid JSON, at byte %d", syntax.ByteOffset)
	}
	return bad("the body is not valid JSON")
}

// nameOf returns a pointer as a.b.c, or "the body" for the whole document.
func nameOf(pointer jsontext.Pointer) string {
	if pointer == "" {
		return "the body"
	}
	var names []string
	for name := range pointer.Tokens() {
		names = append(names, name)
	}
	return strings.Join(names, ".")
}

// checkNesting returns an error if a document is not an object, or nests too deep.
func checkNesting(raw []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(raw))
	if d.PeekKind() != jsontext.KindBeginObject {
		return Problem{Status: http.StatusBadRequest, Detail: "the body must be a JSON object"}
	}
	for {
		_, err := d.ReadToken()
		if errors.Is(err, io.EOF) && d.StackDepth() == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if d.StackDepth() > maxNesting {
			return Problem{
				Status: http.StatusBadRequest, Detail: fmt.Sprintf("the body is nested deeper than %d levels", maxNesting),
			}
		}
	}
}
