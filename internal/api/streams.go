package api

import (
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/ssf"
)

// StreamView is a stream as operators see it.
type StreamView struct {
	ID          uuid.UUID  `json:"id"`
	Audience    []string   `json:"audience"`
	Method      string     `json:"method"`
	Endpoint    string     `json:"endpoint,omitempty"`
	Status      ssf.Status `json:"status"`
	Reason      string     `json:"reason,omitempty"`
	Events      []string   `json:"events"`
	CreatedBy   string     `json:"createdBy"`
	CreatedAt   time.Time  `json:"createdAt"`
	LastError   string     `json:"lastError,omitempty"`
	LastErrorAt *time.Time `json:"lastErrorAt,omitempty"`
	ssf.Lag
}

// assignStream assigns a stream to another token of class receiver, or to an OAuth client.
func (s *Server) assignStream(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Token  uuid.UUID `json:"tokenId"`
		Client uuid.UUID `json:"clientId"`
	}
	id, err := pathID(r)
	if err == nil {
		err = httpjson.Decode(w, r, &body)
	}
	var receiver string
	if err == nil {
		receiver, err = s.Auth.Receiver(r.Context(), tenantOf(r).ID, body.Token, body.Client)
	}
	if err == nil {
		_, err = s.Signals.Assign(r.Context(), tenantOf(r).ID, id, receiver)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// listStreams lists a tenant's streams with their undelivered tokens.
func (s *Server) listStreams(w http.ResponseWriter, r *http.Request) {
	of := tenantOf(r).ID
	streams, err := s.Signals.Streams(r.Context(), of)
	var lags map[uuid.UUID]ssf.Lag
	if err == nil {
		lags, err = s.Signals.Lags(r.Context(), of)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var views []StreamView
	for _, x := range streams {
		lag := lags[x.ID]
		lag.Stream = x.ID
		v := StreamView{
			ID: x.ID, Audience: x.Audience, Method: "poll", Endpoint: x.Endpoint, Status: x.Status, Reason: x.Reason,
			Events: x.Events, CreatedBy: x.CreatedBy, CreatedAt: x.CreatedAt, LastError: x.LastError, LastErrorAt: x.LastErrorAt,
			Lag: lag,
		}
		if x.Push {
			v.Method = "push"
		}
		views = append(views, v)
	}
	answerPage(w, views, "")
}
