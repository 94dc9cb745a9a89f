package scim

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/directory"
	"github.com/leaverhq/leaver/scim/filter"
	"github.com/leaverhq/leaver/scim/schema"
)

const (
	defaultCount = 100
	maxCount     = 500 // upper bound, whatever the client requests
)

// searchRequest is a query from the parameters of a URL (RFC 7644 section 3.4.2) or from
// a posted SearchRequest (section 3.4.3).
type searchRequest struct {
	attributes, excluded []string
	filter               string
	sortBy               string
	descending           bool
	start, count         int
	// cursor is the position of the page (RFC 9865); empty requests the first one.
	cursor   string
	byCursor bool
}

func searchFromQuery(query url.Values) (searchRequest, error) {
	return newSearch(func(name string) (string, bool) {
		return query.Get(name), query.Has(name)
	}, splitNames(query.Get("attributes")), splitNames(query.Get("excludedAttributes")))
}

func splitNames(list string) []string {
	var names []string
	for name := range strings.SplitSeq(list, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// searchFromBody parses a SearchRequest. Member names are case-insensitive.
func searchFromBody(raw map[string]any) (searchRequest, error) {
	members := make(map[string]any, len(raw))
	for name, value := range raw {
		members[strings.ToLower(name)] = value
	}
	names := func(member string) ([]string, error) {
		var names []string
		for _, v := range schema.ListOf(members[member]) {
			name, ok := v.(string)
			if !ok {
				return nil, badRequest(schema.InvalidSyntax, "%s must be a string or an array of strings", member)
			}
			names = append(names, splitNames(name)...)
		}
		return names, nil
	}
	attributes, err := names("attributes")
	if err != nil {
		return searchRequest{}, err
	}
	excluded, err := names("excludedattributes")
	if err != nil {
		return searchRequest{}, err
	}
	for _, member := range []string{"filter", "sortby", "sortorder", "cursor"} {
		if _, ok := members[member].(string); !ok && members[member] != nil {
			return searchRequest{}, badRequest(schema.InvalidSyntax, "%s must be a string", member)
		}
	}
	return newSearch(func(name string) (string, bool) {
		switch value := members[strings.ToLower(name)].(type) {
		case nil:
			return "", false
		case string:
			return value, true
		case interface{ String() string }: // a number, as written
			return value.String(), true
		}
		return "?", true
	}, attributes, excluded)
}

// newSearch builds a search from its parameters. It clamps a page that is out of range (RFC
// 7644 section 3.4.2.4).
func newSearch(get func(string) (string, bool), attributes, excluded []string) (searchRequest, error) {
	q := searchRequest{attributes: attributes, excluded: excluded, start: 1, count: defaultCount}
	q.filter, _ = get("filter")
	q.sortBy, _ = get("sortBy")
	q.cursor, q.byCursor = get("cursor")
	switch order, _ := get("sortOrder"); strings.ToLower(order) {
	case "", "ascending":
	case "descending":
		q.descending = true
	default:
		return q, badRequest(schema.InvalidValue, "sortOrder must be ascending or descending, got %q", schema.Clip(order))
	}
	var err error
	text, indexed := get("startIndex")
	if text != "" {
		if q.start, err = parseCount(text); err != nil {
			return q, badRequest(schema.InvalidValue, "startIndex must be an integer, got %q", schema.Clip(text))
		}
	}
	if indexed && q.byCursor {
		return q, badRequest(schema.InvalidCursor, "cursor and startIndex are mutually exclusive")
	}
	if text, _ := get("count"); text != "" {
		if q.count, err = parseCount(text); err != nil {
			scimType := schema.InvalidValue
			if q.byCursor {
				scimType = schema.InvalidCount
			}
			return q, badRequest(scimType, "count must be an integer, got %q", schema.Clip(text))
		}
	}
	q.start, q.count = max(q.start, 1), min(max(q.count, 0), maxCount)
	return q, nil
}

// parseCount parses an integer and clamps it to the range of int32.
func parseCount(text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil && n == 0 {
		return 0, err
	}
	return int(n), nil
}

// query resolves a search against resource types. At the root, a type that lacks an
// attribute of the filter matches nothing; it is an error if every type lacks it.
func (q searchRequest) query(types []*schema.ResourceType) (directory.Query, error) {
	out := directory.Query{Offset: q.start - 1, Limit: q.count, Sorted: q.sortBy != "", Descending: q.descending}
	var failed, unsortable error
	sortable := false
	for _, rt := range types {
		selection := directory.Selection{Type: rt.Name}
		var err error
		if q.filter != "" {
			if selection.Where, err = filter.Parse(rt, q.filter); err != nil {
				failed = err
				continue
			}
		}
		if q.sortBy != "" {
			if selection.Sort, err = parseSort(rt, q.sortBy); err != nil {
				unsortable = err
			}
			sortable = sortable || err == nil
		}
		out.From = append(out.From, selection)
	}
	switch {
	case len(out.From) == 0:
		return out, failed
	case !sortable:
		return out, unsortable
	}
	return out, nil
}

// parseSort resolves sortBy (RFC 7644 section 3.4.2.3).
func parseSort(rt *schema.ResourceType, path string) (*filter.Field, error) {
	tokens, err := filter.ScanFilter(path + " pr")
	if err != nil || len(tokens) != 2 {
		return nil, badRequest(schema.InvalidValue, "sortBy must be the path of an attribute, got %q", schema.Clip(path))
	}
	condition, err := filter.Parse(rt, path+" pr")
	if err != nil {
		return nil, badRequest(schema.InvalidValue, "sortBy: resources of type %s cannot be sorted by %q", rt.Name,
			schema.Clip(path))
	}
	compare, ok := condition.(filter.Compare)
	if !ok {
		return nil, badRequest(schema.InvalidValue, "sortBy must be the path of an attribute, got %q", schema.Clip(path))
	}
	return &compare.Field, nil
}

// selected returns the resource types that the handler serves: its own, or all at the root.
func (h resourceHandler) selected(r *http.Request) ([]*schema.ResourceType, error) {
	types, err := h.types(r)
	if err != nil || h.name == "" {
		return types, err
	}
	rt, err := h.resourceType(r)
	return []*schema.ResourceType{rt}, err
}

// list handles a GET with a query.
func (h resourceHandler) list(w http.ResponseWriter, r *http.Request) {
	q, err := searchFromQuery(r.URL.Query())
	if err == nil {
		err = h.find(w, r, q)
	}
	if err != nil {
		h.writeError(w, r, err)
	}
}

// search handles a query sent by POST, which keeps the filter out of access logs.
func (h resourceHandler) search(w http.ResponseWriter, r *http.Request) {
	raw, err := h.readObject(w, r)
	if err == nil {
		err = wantMessage(raw, schema.SearchURN)
	}
	var q searchRequest
	if err == nil {
		q, err = searchFromBody(raw)
	}
	if err == nil {
		err = h.find(w, r, q)
	}
	if err != nil {
		h.writeError(w, r, err)
	}
}

func (h resourceHandler) find(w http.ResponseWriter, r *http.Request, q searchRequest) error {
	types, err := h.selected(r)
	if err != nil {
		return err
	}
	projections := make(map[string]projection, len(types))
	for _, rt := range types {
		p, err := newProjection(rt, q.attributes, q.excluded)
		if err != nil {
			return err
		}
		projections[rt.Name] = p
	}
	query, err := q.query(types)
	if err != nil {
		return err
	}
	binding := cursorBinding{sessionOf(r).Tenant.ID, h.name, q.filter, q.sortBy, q.descending}
	if q.byCursor && q.cursor != "" {
		if query.After, err = openCursor(h.Sealer, binding, q.cursor); err != nil {
			return err
		}
	}
	page, err := h.Directory.List(r.Context(), sessionOf(r).Tenant.ID, query)
	if errors.Is(err, database.ErrStatementTimeout) {
		return badRequest(schema.TooMany, "the query exceeded the time limit: use a narrower filter")
	}
	if err != nil {
		return err
	}
	next := ""
	if q.byCursor && page.Next != nil {
		if next, err = sealCursor(h.Sealer, binding, *page.Next); err != nil {
			return err
		}
	}
	return h.writePage(w, r, q, page, projections, next)
}
