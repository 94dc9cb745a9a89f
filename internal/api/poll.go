package api

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/ssf"
)

const (
	maxPoll = 100
	// pollPatience bounds a long poll, below what proxies wait; pollEvery is how often
	// it looks.
	pollPatience = 25 * time.Second
	pollEvery    = 500 * time.Millisecond
)

// poll takes acknowledgements, and answers what waits (RFC 8936). A stream that is not
// enabled has nothing to tell.
func (s *Server) poll(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Max         *int                   `json:"maxEvents"`
		Immediately bool                   `json:"returnImmediately"`
		Ack         []string               `json:"ack"`
		Errs        map[string]ssf.Refusal `json:"setErrs"`
	}
	err := httpjson.DecodeLoosely(w, r, &body)
	var stream ssf.Stream
	if err == nil {
		stream, err = s.stream(r, chi.URLParam(r, "id"))
	}
	if err == nil && stream.Push {
		err = ssf.ErrStreamNotFound
	}
	if err == nil {
		err = s.acknowledge(r, stream, body.Ack, body.Errs)
	}
	limit := maxPoll
	if body.Max != nil {
		limit = max(0, min(*body.Max, maxPoll))
	}
	var tokens []ssf.Token
	var more bool
	if err == nil && limit > 0 && stream.Status == ssf.Enabled {
		tokens, more, err = s.awaitTokens(r, stream, limit, body.Immediately)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	// An object has no order: of each principal the oldest token goes, and the next once
	// that is acknowledged.
	sets, told := make(map[string]string, len(tokens)), make(map[uuid.UUID]bool)
	for _, token := range tokens {
		if token.About != uuid.Nil && told[token.About] {
			more = true
			continue
		}
		told[token.About] = true
		sets[token.JTI.String()] = token.SET
	}
	httpjson.Answer(w, http.StatusOK, map[string]any{"sets": sets, "moreAvailable": more})
}

// maxSettled bounds how many tokens one poll acknowledges or refuses.
const maxSettled = 1000

// acknowledge settles what a receiver has. What is none of ours settles nothing.
func (s *Server) acknowledge(r *http.Request, stream ssf.Stream, ack []string, errs map[string]ssf.Refusal) error {
	if len(ack) > maxSettled || len(errs) > maxPoll {
		return httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf("at most %d are acknowledged and %d refused at a time", maxSettled, maxPoll)}
	}
	var jtis []uuid.UUID
	for _, text := range ack {
		if jti, err := uuid.Parse(text); err == nil {
			jtis = append(jtis, jti)
		}
	}
	if len(jtis) > 0 {
		if err := s.Signals.Acknowledge(r.Context(), caller(r).Tenant.ID, stream.ID, jtis); err != nil {
			return err
		}
	}
	for text, refusal := range errs {
		jti, _ := uuid.Parse(text)
		if _, err := s.Signals.Settle(r.Context(), caller(r).Tenant.ID, stream, jti, &refusal); err != nil {
			return err
		}
	}
	return nil
}

// stillMay tells whether a receiver who has waited may be answered yet.
func (s *Server) stillMay(r *http.Request, stream ssf.Stream) error {
	if _, err := s.Auth.Authenticate(r.Context(), auth.Bearer(r.Header), auth.ClassReceiver); err != nil {
		return httpjson.Problem{Status: http.StatusUnauthorized, Detail: "the token is no longer valid"}
	}
	now, err := s.Signals.Get(r.Context(), caller(r).Tenant.ID, stream.ID)
	if err == nil && now.Status != ssf.Enabled {
		err = httpjson.Problem{Status: http.StatusConflict, Detail: "the stream is " + string(now.Status)}
	}
	return err
}

func (s *Server) awaitTokens(r *http.Request, stream ssf.Stream, limit int, immediately bool) (tokens []ssf.Token, more bool, err error) {
	deadline := time.Now().Add(pollPatience)
	for {
		tokens, more, err = s.Signals.Waiting(r.Context(), caller(r).Tenant.ID, stream, limit)
		if err != nil || len(tokens) > 0 || immediately || time.Now().After(deadline) {
			return tokens, more, err
		}
		select {
		case <-r.Context().Done():
			return nil, false, nil
		case <-time.After(pollEvery):
		}
		if err := s.stillMay(r, stream); err != nil {
			return nil, false, err
		}
	}
}
