package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/credential"
	"github.com/leaverhq/leaver/internal/httpjson"
)

const (
	maxImport      = 16 << 20 // bytes
	maxImportLines = 10_000
	// importRate limits the lines that a token may import, in lines per second, with bursts of
	// importBurst lines.
	importRate  = 1000
	importBurst = 4 * maxImportLines
	// maxLineErrors limits the number of line errors in a response.
	maxLineErrors = 1000
)

// lineError is the error of one line of an import.
type lineError struct {
	Line   int    `json:"line"` // from 1
	Detail string `json:"detail"`
}

// importItems registers the items of an NDJSON body, one per line. If a line is invalid, it registers
// none and returns an error for each invalid line.
func (s *Server) importItems(w http.ResponseWriter, r *http.Request) {
	lines, err := readLines(w, r)
	if err == nil {
		err = s.imports.take(r.Context(), caller(r).TokenID, len(lines))
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	check, skipExisting := r.URL.Query().Get("check") == "true", r.URL.Query().Get("skipExisting") == "true"
	var items []credential.New
	var numbers []int // of the items' lines
	var bad []lineError
	for _, line := range lines {
		var body registration
		err := httpjson.DecodeStrict(line.text, &body)
		if err == nil {
			err = s.check(r.Context(), tenantOf(r), connectors.Kinds(), &body)
		}
		if errors.Is(err, credential.ErrNotAsked) { // the connector would not answer for the other lines either
			s.fail(w, r, err)
			return
		}
		if err != nil {
			bad = append(bad, lineError{line.number, httpjson.ProblemOf(err).Detail})
			continue
		}
		items, numbers = append(items, body.item()), append(numbers, line.number)
	}
	if check {
		httpjson.ExtendDeadlines(w, checkTimeout)
		bad = append(bad, s.probeAll(r.Context(), tenantOf(r).ID, items, numbers)...)
	}
	slow, release, err := s.slow(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer release()
	skipped := 0
	if skipExisting {
		known, err := s.Credentials.Registered(slow, tenantOf(r).ID, items)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		kept, keptNumbers := items[:0], numbers[:0]
		for i, is := range known {
			if is {
				skipped++
				continue
			}
			kept, keptNumbers = append(kept, items[i]), append(keptNumbers, numbers[i])
		}
		items, numbers = kept, keptNumbers
	}
	// After an invalid line, the others are only checked, so that every invalid line is reported.
	register := s.Credentials.RegisterAll
	if len(bad) > 0 || check {
		register = s.Credentials.CheckAll
	}
	refused, err := register(slow, tenantOf(r).ID, items)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	for _, e := range refused {
		bad = append(bad, lineError{numbers[e.Index], httpjson.ProblemOf(e.Cause).Detail})
	}
	slices.SortFunc(bad, func(a, b lineError) int { return a.Line - b.Line })
	if len(bad) > 0 {
		httpjson.Write(w, http.StatusUnprocessableEntity, "application/problem+json", struct {
			httpjson.Problem
			Errors []lineError `json:"errors"`
		}{
			httpjson.Problem{
				Status: http.StatusUnprocessableEntity, Title: http.StatusText(http.StatusUnprocessableEntity),
				Detail: fmt.Sprintf("%d of %d lines are invalid; nothing was registered", len(bad), len(lines)),
			},
			bad[:min(len(bad), maxLineErrors)],
		})
		return
	}
	if check {
		httpjson.Answer(w, http.StatusOK, map[string]int{"registered": 0, "skipped": skipped, "good": len(items)})
		return
	}
	httpjson.Answer(w, http.StatusCreated, map[string]int{"registered": len(items), "skipped": skipped})
}

const (
	// checkTimeout limits the duration of an import with check=true.
	checkTimeout = 10 * time.Minute
	// checksAtOnce limits the concurrent downstream probes of a check.
	checksAtOnce = 16
)

// probeAll probes the items of these lines at their downstreams, and returns the failed lines.
func (s *Server) probeAll(
	ctx context.Context, tenant uuid.UUID, items []credential.New, numbers []int,
) (bad []lineError) {
	var mu sync.Mutex
	var all errgroup.Group
	all.SetLimit(checksAtOnce)
	for i, item := range items {
		all.Go(func() error {
			if refusal := s.looksWrong(ctx, tenant, item); refusal != "" {
				mu.Lock()
				defer mu.Unlock()
				bad = append(bad, lineError{numbers[i], refusal})
			}
			return nil
		})
	}
	_ = all.Wait() // the functions return no error
	return bad
}

// looksWrong probes an item at its downstream. It returns the reason why the item should not be
// registered, or "" if there is none.
func (s *Server) looksWrong(ctx context.Context, tenant uuid.UUID, n credential.New) string {
	vitality, detail, err := s.Connectors.Probe(ctx, tenant, n)
	switch {
	case err != nil:
		return "failed to query the downstream: " + err.Error()
	case vitality == "dead":
		return fmt.Sprintf("no such live credential at the downstream: %s", detail)
	}
	return ""
}

type line struct {
	number int
	text   []byte
}

// readLines returns the lines of the body. It skips blank lines.
func readLines(w http.ResponseWriter, r *http.Request) ([]line, error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || (media != "application/x-ndjson" && media != "application/jsonl") {
		return nil, httpjson.Problem{
			Status: http.StatusUnsupportedMediaType,
			Detail: "Content-Type must be application/x-ndjson, with one registration per line",
		}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxImport))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, httpjson.Problem{
			Status: http.StatusRequestEntityTooLarge,
			Detail: "the body is longer than 16 MiB: split the import into parts",
		}
	}
	if err != nil {
		return nil, httpjson.Problem{Status: http.StatusBadRequest, Detail: "failed to read the body: send the request again"}
	}
	var lines []line
	for i, text := range bytes.Split(raw, []byte("\n")) {
		text = bytes.TrimSpace(text)
		switch {
		case len(text) == 0:
		case len(text) > httpjson.MaxBody:
			return nil, httpjson.Problem{
				Status: http.StatusRequestEntityTooLarge,
				Detail: fmt.Sprintf("line %d is longer than 64 KiB", i+1),
			}
		default:
			lines = append(lines, line{i + 1, text})
		}
	}
	if len(lines) == 0 || len(lines) > maxImportLines {
		return nil, httpjson.Problem{Status: http.StatusUnprocessableEntity, Detail: fmt.Sprintf(
			"an import must have 1 to %d lines, got %d", maxImportLines, len(lines))}
	}
	return lines, nil
}
