// Package httpjson reads and writes JSON over HTTP, within limits. Errors are answered as
// problem details (RFC 9457).
package httpjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/internal/fault"
)

// Problem is an error answer (RFC 9457).
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	// RetryAfter is in seconds; 0 means the default of the status, which may be none.
	RetryAfter int `json:"-"`
	// Line and Column are the position of an error in a mapping document, from 1.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
}

func (p Problem) Error() string { return p.Detail }

// statusOf returns the HTTP status of a code.
func statusOf(code fault.Code) int {
	switch code {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unprocessable:
		return http.StatusUnprocessableEntity
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.Conflict:
		return http.StatusConflict
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Throttled:
		return http.StatusTooManyRequests
	case fault.Internal:
	}
	return http.StatusInternalServerError
}

// ProblemOf translates an error into one that a client may see: without a code it is internal.
func ProblemOf(err error) Problem {
	var p Problem
	if errors.As(err, &p) {
		return p
	}
	coded, ok := fault.Of(err)
	if !ok {
		return Problem{Status: http.StatusInternalServerError, Detail: "internal error"}
	}
	p = Problem{Status: statusOf(coded.Code()), Detail: coded.Error()}
	if at, ok := coded.(interface{ Position() (line, column int) }); ok {
		p.Line, p.Column = at.Position()
	}
	if waits, ok := coded.(interface{ RetryAfter() time.Duration }); ok {
		p.RetryAfter = int(waits.RetryAfter() / time.Second)
	}
	return p
}

// Fail answers with the problem of an error, and logs an internal one.
func Fail(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	p := ProblemOf(err)
	p.Title = http.StatusText(p.Status)
	if p.Status >= http.StatusInternalServerError && r.Context().Err() == nil { // not if the client has disconnected
		log.LogAttrs(r.Context(), slog.LevelError, "request failed",
			slog.String("method", r.Method), slog.String("path", r.URL.Path),
			slog.Int("status", p.Status), slog.Any("error", err))
	}
	if p.RetryAfter == 0 && p.Status == http.StatusServiceUnavailable {
		p.RetryAfter = 5
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	Write(w, p.Status, "application/problem+json", p)
}

// RefuseUnknown makes a router answer a path that is no endpoint, or a method that it does not
// take, with a problem.
func RefuseUnknown(r chi.Router, log *slog.Logger) {
	r.NotFound(func(w http.ResponseWriter, req *http.Request) {
		Fail(w, req, log, Problem{Status: http.StatusNotFound, Detail: "no such endpoint"})
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, req *http.Request) {
		Allow(w, req, r)
		Fail(w, req, log, Problem{Status: http.StatusMethodNotAllowed, Detail: "the endpoint does not support " + req.Method})
	})
}

// Allow adds the methods that a path supports to the Allow header (RFC 9110 section 15.5.6).
func Allow(w http.ResponseWriter, r *http.Request, routes chi.Routes) {
	path := r.URL.Path
	if within := chi.RouteContext(r.Context()); within != nil && within.RoutePath != "" {
		path = within.RoutePath
	}
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if routes.Match(chi.NewRouteContext(), method, path) {
			w.Header().Add("Allow", method)
		}
	}
}

// Answer writes a JSON body that must not be cached.
func Answer(w http.ResponseWriter, status int, body any) {
	Write(w, status, "application/json", body)
}

// AnswerCacheable writes a JSON body that anyone may cache for maxAge.
func AnswerCacheable(w http.ResponseWriter, maxAge time.Duration, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(maxAge/time.Second)))
	_ = json.NewEncoder(w).Encode(body) // a client that is gone needs no answer
}

// Write writes a JSON body of a content type that must not be cached.
func Write(w http.ResponseWriter, status int, contentType string, body any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that is gone needs no answer
}
