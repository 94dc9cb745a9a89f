package api

import (
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/entitlement"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/mapping"
)

// maxMappingBody leaves room for a document's escapes.
const maxMappingBody = 4 * mapping.MaxDocument // bytes

func (s *Server) getMapping(w http.ResponseWriter, r *http.Request) {
	version, err := s.Entitlements.Current(r.Context(), tenantOf(r).ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, version)
}

// applyMapping puts a document in force. A base that is not the version in force any
// more is a conflict: somebody has applied another since its difference was looked at.
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
			err = httpjson.Problem{Status: http.StatusBadRequest, Detail: "cursor is not one of ours"}
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

// testMapping tells what a document, or without one the rules in force, make of a principal.
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

// diffTimeout bounds how long a difference may take.
const diffTimeout = 5 * time.Minute

// diffMapping tells who would gain and lose what by a document.
func (s *Server) diffMapping(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Document string `json:"document"`
	}
	if err := httpjson.DecodeUpTo(w, r, maxMappingBody, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.ExtendDeadlines(w, diffTimeout) // a large tenant takes longer than a request may
	difference, err := s.Entitlements.Diff(r.Context(), tenantOf(r).ID, body.Document)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, difference)
}
