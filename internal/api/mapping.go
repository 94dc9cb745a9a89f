package api

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/entitlement"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/mapping"
)

// maxMappingBody leaves room for the JSON escapes of a document.
const maxMappingBody = 4 * mapping.MaxDocument // bytes

func (s *Server) getMapping(w http.ResponseWriter, r *http.Request) {
	version, err := s.Entitlements.Current(r.Context(), tenantOf(r).ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, version)
}

// applyMapping makes a document the current version. It returns 409 if baseVersion is not the current
// version any more, because another was applied since the caller compared the document.
func (s *Server) applyMapping(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Document string `json:"document"`
		Base     *int   `json:"baseVersion"`
		Reason   string `json:"reason"`
	}
	err := httpjson.DecodeUpTo(w, r, maxMappingBody, &body)
	if err == nil {
		err = checkReason(&body.Reason)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	base := -1
	if body.Base != nil {
		base = *body.Base
	}
	version, err := s.Entitlements.Apply(r.Context(), tenantOf(r).ID, body.Document, base, caller(r).Actor(), body.Reason)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, version)
}

func (s *Server) listMappings(w http.ResponseWriter, r *http.Request) {
	n, err := limit(r)
	before := 0
	if text := r.URL.Query().Get("cursor"); err == nil && text != "" {
		if before, err = strconv.Atoi(text); err != nil || before < 1 {
			err = httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
				"cursor must be the nextCursor of the previous page, got %q", text)}
		}
	}
	var versions []entitlement.Version
	if err == nil {
		versions, err = s.Entitlements.History(r.Context(), tenantOf(r).ID, before, n)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	next := ""
	if len(versions) == n {
		next = strconv.Itoa(versions[n-1].Version)
	}
	answerPage(w, versions, next)
}

func (s *Server) getMappingVersion(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(chi.URLParam(r, "version"))
	if err != nil {
		s.fail(w, r, entitlement.ErrNoVersion)
		return
	}
	version, err := s.Entitlements.Get(r.Context(), tenantOf(r).ID, n)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, version)
}

func (s *Server) rollbackMapping(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Version int    `json:"version"`
		Reason  string `json:"reason"`
	}
	err := httpjson.Decode(w, r, &body)
	if err == nil {
		err = checkReason(&body.Reason)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	version, err := s.Entitlements.Rollback(r.Context(), tenantOf(r).ID, body.Version, caller(r).Actor(), body.Reason)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, version)
}

// testMapping evaluates a document, or by default the current version, for one principal.
func (s *Server) testMapping(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Document  *string   `json:"document"`
		Principal uuid.UUID `json:"principalId"`
	}
	err := httpjson.DecodeUpTo(w, r, maxMappingBody, &body)
	var result mapping.Result
	if err == nil {
		result, err = s.Entitlements.Test(r.Context(), tenantOf(r).ID, body.Principal, body.Document)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, result)
}

// diffTimeout limits the duration of a diff.
const diffTimeout = 5 * time.Minute

// diffMapping lists the entitlements that principals would gain and lose by a document.
func (s *Server) diffMapping(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Document string `json:"document"`
	}
	if err := httpjson.DecodeUpTo(w, r, maxMappingBody, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.ExtendDeadlines(w, diffTimeout) // a large tenant exceeds the server's timeouts
	difference, err := s.Entitlements.Diff(r.Context(), tenantOf(r).ID, body.Document)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, difference)
}
