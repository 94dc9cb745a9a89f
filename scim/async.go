package scim

import (
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/internal/lifecycle"
	"github.com/leaverhq/leaver/scim/schema"
)

// respondAsync responds 202 if the client prefers not to wait for the workflow (RFC 9967
// section 3, RFC 7240), and reports whether it did. The transaction id is the workflow id,
// so it stays valid after a restart. A write that starts no workflow is complete and gets
// the usual response.
func (s *Server) respondAsync(w http.ResponseWriter, r *http.Request, result lifecycle.Result) bool {
	if result.Event == nil || !prefersAsync(r) {
		return false
	}
	// The write is committed. If this fails, the client gets no event and can poll the transaction.
	if err := s.Transactions.NotifyOnCompletion(r.Context(), result.Event.Tenant, result.Event.ID); err != nil {
		s.Log.WarnContext(r.Context(), "failed to request the async completion event; client must poll",
			"workflow", result.Event.WorkflowID, "error", err)
	}
	w.Header().Set("Set-Txn", result.Event.WorkflowID)
	w.Header().Set("Preference-Applied", "respond-async")
	w.Header().Set("Location", transactionURL(r, result.Event.WorkflowID))
	if result.Resource != nil {
		w.Header().Set("ETag", etag(result.Resource))
	}
	w.WriteHeader(http.StatusAccepted)
	return true
}

func transactionURL(r *http.Request, txn string) string {
	return sessionOf(r).base + "/Transactions/" + (&url.URL{Path: txn}).EscapedPath()
}

func prefersAsync(r *http.Request) bool {
	for _, header := range r.Header.Values("Prefer") {
		for preference := range strings.SplitSeq(header, ",") {
			name, _, _ := strings.Cut(preference, ";")
			if strings.EqualFold(strings.TrimSpace(name), "respond-async") {
				return true
			}
		}
	}
	return false
}

// operationResult is the result of one operation in a bulk response (RFC 7644 section
// 3.7.3).
type operationResult struct {
	Method   string `json:"method"`
	BulkID   string `json:"bulkId,omitempty"`
	Version  string `json:"version,omitempty"`
	Location string `json:"location,omitempty"`
	Status   string `json:"status"`
	Response any    `json:"response,omitempty"`
}

// transactionBody is the status of a transaction. The write was committed before the 202;
// the status is that of the cascade.
type transactionBody struct {
	Schemas   []string        `json:"schemas"`
	Txn       string          `json:"txn"`
	Status    string          `json:"status"` // pending, running, completed or failed
	Operation operationResult `json:"operation"`
	Created   time.Time       `json:"created"`
	Closed    *time.Time      `json:"closed,omitempty"`
	Verified  int             `json:"verified"`
	Revoked   int             `json:"revoked"`
	Absent    int             `json:"absent"`
	Expiring  int             `json:"expiring"`
	Survivors int             `json:"survivors"`
}

// transaction serves the status of an asynchronous write.
func (s *Server) transaction(w http.ResponseWriter, r *http.Request) {
	txn, err := url.PathUnescape(chi.URLParam(r, "*"))
	if err != nil || !utf8.ValidString(txn) || strings.ContainsRune(txn, 0) {
		s.writeError(w, r, failure(http.StatusNotFound, "no such transaction"))
		return
	}
	t, err := s.Transactions.Transaction(r.Context(), sessionOf(r).Tenant.ID, txn)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	types, err := s.types(r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	var result operationResult
	result.Method, result.Status = t.Trigger.Request()
	if result.Method != http.MethodDelete {
		for _, rt := range types {
			if rt.Name == t.Type {
				result.Location = location(rt, sessionOf(r).base, t.Principal)
			}
		}
	}
	writeJSON(w, http.StatusOK, transactionBody{
		Schemas: []string{schema.TransactionURN}, Txn: txn, Status: t.Outcome, Operation: result,
		Created: t.CreatedAt.UTC(), Closed: t.ClosedAt,
		Verified: t.Verified, Revoked: t.Revoked, Absent: t.Absent, Expiring: t.Expiring, Survivors: t.Survivors,
	})
}
