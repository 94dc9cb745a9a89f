package api

import (
	"fmt"
	"net/http"
	"time"

	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// showTiming serves the time to zero of a tenant's leavers.
func (s *Server) showTiming(w http.ResponseWriter, r *http.Request) {
	since, target := time.Now().Add(-cascade.DefaultSince), cascade.DefaultTarget
	var err error
	if text := r.URL.Query().Get("since"); text != "" {
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			err = httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
				"since must be a time such as 2026-11-27T18:00:00Z, got %q", text)}
		}
	}
	if text := r.URL.Query().Get("target"); text != "" && err == nil {
		if target, err = time.ParseDuration(text); err != nil || target <= 0 {
			err = httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
				"target must be a duration such as 5m, got %q", text)}
		}
	}
	var timing cascade.Timing
	if err == nil {
		timing, err = s.Cascades.Timing(r.Context(), tenantOf(r).ID, since, target)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	httpjson.Answer(w, http.StatusOK, timing)
}
