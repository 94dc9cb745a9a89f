package api

import (
	"fmt"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// serveEvidence adds the routes of a hash chain: a tenant's, or the installation's.
func (s *Server) serveEvidence(r roles) {
	r.audit.With(s.slowly).Get("/evidence", s.listChain)
	r.audit.With(s.slowly).Get("/evidence/checkpoints", s.listCheckpoints)
	r.audit.With(s.slowly).Post("/evidence/exports", s.exportEvidence)
}

// listChain serves a page of a chain.
func (s *Server) listChain(w http.ResponseWriter, r *http.Request) {
	serveAfter(s, w, r, s.Chain.Entries, func(c evidence.Chained) int64 { return c.Entry.Sequence })
}

// listCheckpoints serves a page of a chain's signed checkpoints.
func (s *Server) listCheckpoints(w http.ResponseWriter, r *http.Request) {
	serveAfter(s, w, r, s.Chain.Checkpoints, func(c evidence.Checkpoint) int64 { return c.Statement.Sequence })
}

// exportEvidence records the export, and signs the chain with this record. The client then reads the entries up to the
// checkpoint in the response.
func (s *Server) exportEvidence(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Principal *uuid.UUID `json:"principal"` // of a report; nil for the whole chain
	}
	if err := httpjson.Decode(w, r, &body); err != nil {
		s.fail(w, r, err)
		return
	}
	checkpoint, err := s.Chain.RecordExport(r.Context(), tenantOf(r).ID, body.Principal)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusCreated, checkpoint)
}

func (s *Server) listEvidenceKeys(w http.ResponseWriter, r *http.Request) {
	keys, err := s.Chain.PublicKeys(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, keys, "")
}

// listHistories serves the archived runs of a cascade.
func (s *Server) listHistories(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	if err == nil {
		_, err = s.Cascades.Get(r.Context(), tenantOf(r).ID, id)
	}
	var runs []evidence.Archived
	if err == nil {
		runs, err = s.Archive.Of(r.Context(), tenantOf(r).ID, id)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answerPage(w, runs, "")
}

// getHistory serves the archived history of a run, as Temporal's JSON. Its payloads are sealed.
func (s *Server) getHistory(w http.ResponseWriter, r *http.Request) {
	id, err := pathID(r)
	var history []byte
	if err == nil {
		history, err = s.Archive.History(r.Context(), tenantOf(r).ID, id, chi.URLParam(r, "run"))
	}
	if err == nil && history == nil {
		err = httpjson.Problem{
			Status: http.StatusNotFound, Detail: fmt.Sprintf("no archived history of run %.80q", chi.URLParam(r, "run")),
		}
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(history) //nolint:gosec // JSON, byte for byte what its SHA-256 is of
}
