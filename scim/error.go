package scim

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/scim/schema"
)

const contentType = "application/scim+json"

// Error is an error response (RFC 7644 section 3.12).
type Error struct {
	Status int
	Type   schema.ErrorKind // scimType; empty if the RFC defines none
	Detail string
}

func (e *Error) Error() string { return e.Detail }

func badRequest(kind schema.ErrorKind, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Type: kind, Detail: fmt.Sprintf(format, args...)}
}

func failure(status int, detail string) *Error { return &Error{Status: status, Detail: detail} }

// retryAfter is the Retry-After of a 503 response, in seconds.
const retryAfter = 5

// toError converts any error into one that a client may see.
func toError(err error) *Error {
	var scimErr *Error
	var violation *schema.Error
	var target *schema.UnknownTargetError
	switch {
	case errors.As(err, &scimErr):
		return scimErr
	case errors.As(err, &violation):
		return &Error{Status: http.StatusBadRequest, Type: violation.Kind, Detail: violation.Detail}
	case errors.As(err, &target):
		return badRequest(schema.InvalidValue, "%s", target.Error())
	case errors.Is(err, directory.ErrParents):
		return badRequest(schema.InvalidValue, "%s", directory.ErrParents.Error())
	case errors.Is(err, directory.ErrNotFound), errors.Is(err, cascade.ErrTransactionNotFound):
		return failure(http.StatusNotFound, "no such resource")
	case errors.Is(err, directory.ErrNameTaken):
		return &Error{
			Status: http.StatusConflict, Type: schema.NotUnique, Detail: "another resource has the same name or unique value",
		}
	case errors.Is(err, directory.ErrUnservable):
		return badRequest(schema.InvalidFilter, "%s", err)
	case errors.Is(err, directory.ErrUnsortable):
		return badRequest(schema.InvalidValue, "%s", err)
	case errors.Is(err, auth.ErrKeysUnavailable):
		return failure(http.StatusServiceUnavailable, "failed to read the keys of the token's issuer; try again")
	case errors.Is(err, database.ErrUnavailable), errors.Is(err, database.ErrStatementTimeout):
		return failure(http.StatusServiceUnavailable, "the directory is unavailable; try again")
	}
	return failure(http.StatusInternalServerError, "internal error")
}

// writeError sends a SCIM error response and logs errors that the client may not see. It
// logs nothing if the client has disconnected.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	e := toError(err)
	if e.Status >= http.StatusInternalServerError && e.Status != http.StatusNotImplemented && r.Context().Err() == nil {
		s.Log.LogAttrs(r.Context(), slog.LevelError, "failed to handle request",
			slog.String("method", r.Method), slog.String("path", r.URL.Path),
			slog.Int("status", e.Status), slog.Any("error", err))
	}
	if e.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	writeJSON(w, e.Status, bodyOf(e))
}

// errorBody is the body of an error response, with the members of RFC 7644 section 3.12 only.
type errorBody struct {
	Schemas []string         `json:"schemas"`
	Status  string           `json:"status"`
	Type    schema.ErrorKind `json:"scimType,omitempty"`
	Detail  string           `json:"detail"`
}

func bodyOf(e *Error) errorBody {
	return errorBody{[]string{schema.ErrorURN}, strconv.Itoa(e.Status), e.Type, e.Detail}
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	encoded, err := json.Marshal(body)
	if err != nil {
		http.Error(w, `{"schemas":["`+schema.ErrorURN+`"],"status":"500","detail":"internal error"}`,
			http.StatusInternalServerError)
		return
	}
	writeBytes(w, status, encoded)
}

func writeBytes(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have disconnected
}
