package ssf

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/httpjson"
)

const (
	maxPoll = 100
	// pollTimeout limits a long poll, below the usual timeouts of proxies; pollEvery is the
	// interval of its queries.
	pollTimeout = 25 * time.Second
	pollEvery   = 500 * time.Millisecond
)

// poll processes acknowledgements and returns undelivered tokens (RFC 8936). A stream that is not
// enabled returns none.
func (s *Server) poll(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Max         *int               `json:"maxEvents"`
		Immediately bool               `json:"returnImmediately"`
		Ack         []string           `json:"ack"`
		Errs        map[string]Refusal `json:"setErrs"`
	}
	err := httpjson.DecodeLoosely(w, r, &body)
	var stream Stream
	if err == nil {
		stream, err = s.stream(r, chi.URLParam(r, "id"))
	}
	if err == nil && stream.Push {
		err = ErrStreamNotFound
	}
	if err == nil {
		err = s.acknowledge(r, stream, body.Ack, body.Errs)
	}
	limit := maxPoll
	if body.Max != nil {
		limit = max(0, min(*body.Max, maxPoll))
	}
	var tokens []Token
	var more bool
	if err == nil && limit > 0 && stream.Status == Enabled {
		tokens, more, err = s.awaitTokens(r, stream, limit, body.Immediately)
	}
	if err != nil {
		httpjson.Fail(w, r, s.Log, err)
		return
	}
	// The members of a JSON object have no order: only the oldest token of each principal is sent,
	// and the next one after that is acknowledged.
	sets, sent := make(map[string]string, len(tokens)), make(map[uuid.UUID]bool)
	for _, token := range tokens {
		if token.About != uuid.Nil && sent[token.About] {
			more = true
			continue
		}
		sent[token.About] = true
		sets[token.JTI.String()] = token.SET
	}
	httpjson.Answer(w, http.StatusOK, map[string]any{"sets": sets, "moreAvailable": more})
}

// maxSettled limits how many tokens one poll acknowledges.
const maxSettled = 1000

// acknowledge settles the tokens that a receiver accepted or refused. It ignores unknown ones.
func (s *Server) acknowledge(r *http.Request, stream Stream, ack []string, errs map[string]Refusal) error {
	if len(ack) > maxSettled || len(errs) > maxPoll {
		return httpjson.Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf(
			"ack must have at most %d entries and setErrs at most %d, got %d and %d", maxSettled, maxPoll, len(ack), len(errs))}
	}
	var jtis []uuid.UUID
	for _, text := range ack {
		if jti, err := uuid.Parse(text); err == nil {
			jtis = append(jtis, jti)
		}
	}
	if len(jtis) > 0 {
		if err := s.Store.Acknowledge(r.Context(), auth.CallerOf(r).Tenant.ID, stream.ID, jtis); err != nil {
			return err
		}
	}
	for text, refusal := range errs {
		jti, _ := uuid.Parse(text)
		if _, err := s.Store.Settle(r.Context(), auth.CallerOf(r).Tenant.ID, stream, jti, &refusal); err != nil {
			return err
		}
	}
	return nil
}

// stillMay returns an error if the token or the stream became invalid during a long poll.
func (s *Server) stillMay(r *http.Request, stream Stream) error {
	if _, err := s.Auth.Authenticate(r.Context(), auth.Bearer(r.Header), auth.ClassReceiver); err != nil {
		return httpjson.Problem{Status: http.StatusUnauthorized, Detail: "the token is no longer valid"}
	}
	now, err := s.Store.Get(r.Context(), auth.CallerOf(r).Tenant.ID, stream.ID)
	if err == nil && now.Status != Enabled {
		err = httpjson.Problem{Status: http.StatusConflict, Detail: "the stream is " + string(now.Status)}
	}
	return err
}

func (s *Server) awaitTokens(
	r *http.Request, stream Stream, limit int, immediately bool,
) (tokens []Token, more bool, err error) {
	deadline := time.Now().Add(pollTimeout)
	for {
		stored := s.Store.stored.next()
		tokens, more, err = s.Store.Waiting(r.Context(), auth.CallerOf(r).Tenant.ID, stream, limit)
		if err != nil || len(tokens) > 0 || immediately || time.Now().After(deadline) {
			return tokens, more, err
		}
		select {
		case <-r.Context().Done():
			return nil, false, nil
		case <-stored:
		case <-time.After(pollEvery):
		}
		if err := s.stillMay(r, stream); err != nil {
			return nil, false, err
		}
	}
}
