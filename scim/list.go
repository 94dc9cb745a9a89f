package scim

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/leaverhq/leaver/internal/directory"
)

const (
	defaultCount = 100
	maxCount     = 500 // a page size is forced, whatever the client asks
)

// list answers a query (RFC 7644 section 3.4.2).
func (h resourceHandler) list(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	p, err := parseProjection(h.rt, query)
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	start, count, err := parsePage(query)
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	q := directory.Query{Type: h.rt.Name, Offset: start - 1, Limit: count, WithoutEdges: h.omitsEdges(p)}
	if text := query.Get("filter"); text != "" {
		if q.Where, err = parseFilter(h.rt, text); err != nil {
			h.writeError(w, r, err)
			return
		}
	}
	page, total, err := h.directory.List(r.Context(), caller(r).Tenant.ID, q)
	if err != nil {
		h.writeError(w, r, err)
		return
	}
	resources := make([]json.RawMessage, 0, len(page))
	for _, resource := range page {
		body, err := p.apply(h.rt.render(h.base(r), resource))
		if err != nil {
			h.writeError(w, r, err)
			return
		}
		resources = append(resources, body)
	}
	writeList(w, resources, total, start)
}

// omitsEdges tells whether no edge is asked for: a group of thousands is then
// read without its members.
func (h resourceHandler) omitsEdges(p projection) bool {
	for i := range h.rt.Schema.Attributes {
		if a := &h.rt.Schema.Attributes[i]; a.edge && !p.omits(a.Name) {
			return false
		}
	}
	return true
}

// parsePage clamps what is out of range (RFC 7644 section 3.4.2.4).
func parsePage(query url.Values) (start, count int, err error) {
	start, count = 1, defaultCount
	if text := query.Get("startIndex"); text != "" {
		if start, err = parseCount(text); err != nil {
			return 0, 0, badRequest(invalidValue, "startIndex is not an integer")
		}
	}
	if text := query.Get("count"); text != "" {
		if count, err = parseCount(text); err != nil {
			return 0, 0, badRequest(invalidValue, "count is not an integer")
		}
	}
	return max(start, 1), min(max(count, 0), maxCount), nil
}

// parseCount reads an integer; one that no int holds is the largest.
func parseCount(text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil && n == 0 {
		return 0, err
	}
	return int(n), nil
}

func writeList[T any](w http.ResponseWriter, resources []T, total, start int) {
	writeJSON(w, http.StatusOK, struct {
		Schemas      []string `json:"schemas"`
		TotalResults int      `json:"totalResults"`
		StartIndex   int      `json:"startIndex"`
		ItemsPerPage int      `json:"itemsPerPage"`
		Resources    []T      `json:"Resources"`
	}{[]string{listURN}, total, start, len(resources), resources})
}
