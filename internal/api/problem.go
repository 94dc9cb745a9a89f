package api

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/internal/entitlement"
	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/internal/mapping"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/internal/ssf"
	"github.com/leaverhq/leaver/internal/tenant"
)

const maxBody = 64 << 10 // bytes

// problem is an error answer (RFC 9457).
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	// RetryAfter is in seconds; 0 says nothing.
	RetryAfter int `json:"-"`
	// Line and Column are where a mapping's mistake is, from 1.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
}

func (p problem) Error() string { return p.Detail }

// toProblem translates the domain's errors; what it does not know stays inside.
func toProblem(err error) problem {
	var p problem
	if errors.As(err, &p) {
		return p
	}
	var refused *cascade.RefusedError
	if errors.As(err, &refused) {
		return problem{Status: http.StatusConflict, Detail: refused.Reason}
	}
	var rule *mapping.Error
	if errors.As(err, &rule) {
		return problem{Status: http.StatusUnprocessableEntity, Detail: rule.Error(), Line: rule.Line, Column: rule.Column}
	}
	var issuer *auth.InvalidIssuerError
	if errors.As(err, &issuer) {
		return problem{Status: http.StatusUnprocessableEntity, Detail: issuer.Error()}
	}
	var schema *tenant.InvalidSchemaError
	if errors.As(err, &schema) {
		return problem{Status: http.StatusUnprocessableEntity, Detail: schema.Error()}
	}
	statuses := []struct {
		is     error
		status int
	}{
		{tenant.ErrNotFound, http.StatusNotFound},
		{auth.ErrTokenNotFound, http.StatusNotFound},
		{tenant.ErrExists, http.StatusConflict},
		{tenant.ErrInvalidName, http.StatusBadRequest},
		{tenant.ErrInvalidRate, http.StatusUnprocessableEntity},
		{tenant.ErrInvalidPolicy, http.StatusUnprocessableEntity},
		{auth.ErrIssuerNotFound, http.StatusNotFound},
		{auth.ErrIssuerExists, http.StatusConflict},
		{tenant.ErrSchemaNotFound, http.StatusNotFound},
		{tenant.ErrSchemaInUse, http.StatusConflict},
		{credential.ErrNotFound, http.StatusNotFound},
		{credential.ErrUnknownPrincipal, http.StatusUnprocessableEntity},
		{credential.ErrRestricted, http.StatusConflict},
		{credential.ErrNotEntitled, http.StatusConflict},
		{ssf.ErrStreamNotFound, http.StatusNotFound},
		{ssf.ErrTooMany, http.StatusConflict},
		{entitlement.ErrNoMapping, http.StatusNotFound},
		{entitlement.ErrNoVersion, http.StatusNotFound},
		{entitlement.ErrOutdated, http.StatusConflict},
		{entitlement.ErrUnknownPrincipal, http.StatusNotFound},
		{credential.ErrDuplicate, http.StatusConflict},
		{credential.ErrEnding, http.StatusConflict},
		{credential.ErrNotCorrectable, http.StatusConflict},
		{credential.ErrAccountEnding, http.StatusConflict},
		{credential.ErrNotAsked, http.StatusServiceUnavailable},
		{credential.ErrUnboundNotFound, http.StatusNotFound},
		{cascade.ErrNotHeld, http.StatusConflict},
		{registry.ErrPaused, http.StatusConflict},
		{registry.ErrNotPaused, http.StatusConflict},
		{directory.ErrNotFound, http.StatusNotFound},
		{directory.ErrInvalidSubject, http.StatusBadRequest},
		{directory.ErrAmbiguousSubject, http.StatusUnprocessableEntity},
		{auth.ErrKeysUnavailable, http.StatusServiceUnavailable},
		{cascade.ErrNotFound, http.StatusNotFound},
		{lifecycle.ErrNotRestricted, http.StatusConflict},
		{cascade.ErrNotFailed, http.StatusConflict},
		{cascade.ErrNotRunning, http.StatusConflict},
		{database.ErrStatementTimeout, http.StatusServiceUnavailable},
		{database.ErrUnavailable, http.StatusServiceUnavailable},
	}
	for _, s := range statuses {
		if errors.Is(err, s.is) {
			return problem{Status: s.status, Detail: s.is.Error()}
		}
	}
	return problem{Status: http.StatusInternalServerError, Detail: "internal error"}
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := toProblem(err)
	p.Title = http.StatusText(p.Status)
	if p.Status >= http.StatusInternalServerError && r.Context().Err() == nil { // not of a client that is gone
		s.Log.LogAttrs(r.Context(), slog.LevelError, "request failed",
			slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", p.Status), slog.Any("error", err))
	}
	switch {
	case p.RetryAfter > 0:
	case p.Status == http.StatusServiceUnavailable:
		p.RetryAfter = 5
	case errors.Is(err, credential.ErrAccountEnding):
		p.RetryAfter = 60
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	write(w, p.Status, "application/problem+json", p)
}

func answer(w http.ResponseWriter, status int, body any) {
	write(w, status, "application/json", body)
}

func write(w http.ResponseWriter, status int, contentType string, body any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that is gone needs no answer
}

// decode reads a request's JSON object strictly: a misspelt member is told.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	return decodeUpTo(w, r, maxBody, into)
}

func decodeUpTo(w http.ResponseWriter, r *http.Request, limit int64, into any) error {
	if r.Header.Get("Content-Type") != "" && !isJSON(r) {
		return problem{Status: http.StatusUnsupportedMediaType, Detail: "send application/json"}
	}
	return decodeStrict(json.NewDecoder(http.MaxBytesReader(w, r.Body, limit)), into)
}

func decodeStrict(d *json.Decoder, into any) error {
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return problem{Status: http.StatusBadRequest, Detail: "something follows the JSON object"}
		}
		return nil
	}
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return unread(err)
	case errors.As(err, &wrongType):
		return problem{Status: http.StatusBadRequest, Detail: wrongType.Field + ": the value has the wrong type"}
	case strings.HasPrefix(err.Error(), "json: unknown field"):
		return problem{Status: http.StatusBadRequest, Detail: strings.TrimPrefix(err.Error(), "json: ")}
	}
	return problem{Status: http.StatusBadRequest, Detail: "the body is not valid: want a JSON object as the OpenAPI document at /v1/openapi.yaml says"}
}
