package console

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/apiclient"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/httpjson"
	"github.com/leaverhq/leaver/internal/report"
)

// done maps a verb to the message shown after it.
func done() map[string]string {
	return map[string]string{
		"rerun": "The cascade runs again.", "retry": "The cascade tries at once.",
		"waive":  "The waiver is recorded, or waits for an approver if the tenant requires one.",
		"cancel": "The cascade is cancelled.", "end": "The deactivation has started.",
		"restore": "The principal is restored.",
		"approve": "Approved.", "decline": "Declined.", "claim": "The credential is claimed.",
		"pause": "The connector is paused.", "resume": "The connector is resumed.", "revoke": "The token is revoked.",
	}
}

// approverToken is the field with the token of an approver, whose tokens open no session: it is for one act.
const approverToken = "approverToken"

// formTime is how a browser sends a time: in UTC, as the label says.
const formTime = "2006-01-02T15:04"

// actOn registers a POST route for each verb on an object. The path and the fields are those of the API.
func (s *Server) actOn(r chi.Router, object string, verbs ...string) {
	for _, verb := range verbs {
		r.Post(object+"/"+verb, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			body, err := fields(r)
			q := s.request(r)
			if token := r.PostFormValue(approverToken); token != "" {
				q.Token = strings.TrimSpace(token)
			}
			if err == nil {
				err = q.Do(r.Context(), http.MethodPost, strings.TrimPrefix(r.URL.EscapedPath(), api.ConsolePath), body, nil)
			}
			if err != nil {
				s.fail(w, r, err)
				return
			}
			//nolint:gosec // below the console's own path
			http.Redirect(w, r, back(r)+"?"+url.Values{"done": {verb}}.Encode(), http.StatusSeeOther)
		})
	}
}

// back returns the page that a button is on: the object's own, or that of its list.
func back(r *http.Request) string {
	object := r.URL.EscapedPath()[:strings.LastIndex(r.URL.EscapedPath(), "/")]
	tenant := api.ConsolePath + "/tenants/" + url.PathEscape(chi.URLParam(r, "tenant"))
	switch {
	case strings.HasPrefix(object, api.ConsolePath+"/connectors/"):
		return api.ConsolePath + "/connectors"
	case strings.Contains(object, "/cascades/"), strings.Contains(object, "/principals/"):
		return object
	}
	return tenant + "/"
}

// fields returns the fields of a form as the API's body has them.
func fields(r *http.Request) (map[string]any, error) {
	if err := r.ParseForm(); err != nil {
		return nil, &apiclient.RefusalError{Status: http.StatusBadRequest, Detail: "the form cannot be read: " + err.Error()}
	}
	body := make(map[string]any)
	for name, values := range r.PostForm {
		switch value := values[0]; name {
		case approverToken: // not of the API's body
		case "heldCascades", "ttlSeconds":
			n, err := strconv.Atoi(value)
			if err != nil {
				return nil, &apiclient.RefusalError{Status: http.StatusBadRequest, Detail: name + " must be a number"}
			}
			body[name] = n
		case "until":
			at, err := time.Parse(formTime, value)
			if err != nil {
				return nil, &apiclient.RefusalError{Status: http.StatusBadRequest, Detail: "until must be a date and a time"}
			}
			body[name] = at
		default:
			body[name] = value
		}
	}
	return body, nil
}

// writeReport writes the report about a principal, as `leaver evidence report` does.
func (s *Server) writeReport(w http.ResponseWriter, r *http.Request) {
	q := s.request(r)
	id, err := uuid.Parse(chi.URLParam(r, "id"))
	var written report.Report
	if err == nil {
		written, err = report.Read(r.Context(), q.Client, q.tenant, id, id.String())
	}
	var body bytes.Buffer
	if err == nil {
		err = written.Write(&body)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox allow-modals")
	_, _ = w.Write(body.Bytes())
}

// exportTime is how long an export may take.
const exportTime = 10 * time.Minute

// exportEvidence writes the export of a tenant's chain, as `leaver evidence export` does.
func (s *Server) exportEvidence(w http.ResponseWriter, r *http.Request) {
	q := s.request(r)
	call := func(ctx context.Context, method, path string, body, into any) error {
		return q.Do(ctx, method, q.of(path), body, into)
	}
	httpjson.ExtendDeadlines(w, exportTime)
	begun := false
	open := func(h evidence.Header, checkpoints []evidence.Checkpoint) (evidence.Writer, error) {
		begun = true
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("Content-Disposition", `attachment; filename="evidence.jsonl"`)
		return evidence.NewExport(w, h, checkpoints)
	}
	if _, err := evidence.Download(r.Context(), call, open); err != nil {
		if begun {
			panic(http.ErrAbortHandler) // the browser must not keep a part as the whole
		}
		s.fail(w, r, err)
	}
}

// issueToken issues a token, and shows its secret once.
func (s *Server) issueToken(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	body, err := fields(r)
	var issued struct {
		auth.Token
		Secret string `json:"secret"`
	}
	q := s.request(r)
	if err == nil {
		err = q.Do(r.Context(), http.MethodPost, q.of("/tokens"), body, &issued)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.show(w, r, http.StatusOK, "secret", issued)
}

func (s *Server) revokeToken(w http.ResponseWriter, r *http.Request) {
	q := s.request(r)
	err := q.Do(r.Context(), http.MethodDelete, q.of("/tokens/"+url.PathEscape(chi.URLParam(r, "id"))), nil, nil)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	http.Redirect(w, r, api.ConsolePath+"/tenants/"+url.PathEscape(q.tenant)+"/tokens?done=revoke", http.StatusSeeOther)
}
