package scim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/scim/schema"
)

const (
	maxBulk = 1000 // operations
	// bulkTimeout bounds each operation, including the time to write the response.
	bulkTimeout = 90 * time.Second
	// bulkPrefix precedes the bulkId of a resource that the same request creates (RFC 7644
	// section 3.7.2).
	bulkPrefix = "bulkId:"
)

// bulkRequest is a BulkRequest message (RFC 7644 section 3.7).
type bulkRequest struct {
	operations   []*bulkOperation
	failOnErrors int // 0 means no limit
}

type bulkOperation struct {
	method, bulkID, path, version string
	data                          any
	needs                         map[string]bool // bulkIds
	// refused is the error of an operation that is not executed.
	refused *Error
}

// bulk executes operations one by one, each like a separate request: with the same guards,
// transaction and events. An operation that refers to another one's resource runs after it,
// regardless of the order in which they were sent.
func (s *Server) bulk(w http.ResponseWriter, r *http.Request) {
	raw, err := s.readObject(w, r)
	if err == nil {
		err = wantMessage(raw, schema.BulkRequestURN)
	}
	var types []*schema.ResourceType
	if err == nil {
		types, err = s.types(r)
	}
	var request bulkRequest
	if err == nil {
		request, err = parseBulk(raw, types)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	run := bulkRun{
		Server: s, request: r, ids: make(map[string]string), results: make(map[*bulkOperation]operationResult),
	}
	failed := 0
	connection := http.NewResponseController(w)
	for _, o := range inOrder(request.operations) {
		// Extend the deadline so that the response is sent even if the operations take long.
		_ = connection.SetWriteDeadline(time.Now().Add(bulkTimeout)) // a recorder has no deadline
		if run.execute(o); run.failed(o) {
			if failed++; failed == request.failOnErrors {
				break
			}
		}
	}
	results := []operationResult{}
	for _, o := range request.operations {
		if result, ok := run.results[o]; ok {
			results = append(results, result)
		}
	}
	writeJSON(w, http.StatusOK, struct {
		Schemas    []string          `json:"schemas"`
		Operations []operationResult `json:"Operations"`
	}{[]string{schema.BulkResponseURN}, results})
}

func parseBulk(raw map[string]any, types []*schema.ResourceType) (bulkRequest, error) {
	var b bulkRequest
	var list []any
	for name, value := range raw {
		switch strings.ToLower(name) {
		case "operations":
			list, _ = value.([]any)
		case "failonerrors":
			n, err := strconv.Atoi(fmt.Sprint(value))
			if value != nil && (err != nil || n < 0) {
				return b, badRequest(schema.InvalidSyntax,
					"failOnErrors must be a non-negative integer, got %s", schema.Clip(fmt.Sprint(value)))
			}
			b.failOnErrors = n
		}
	}
	if len(list) == 0 {
		return b, badRequest(schema.InvalidSyntax, "Operations must be a non-empty array")
	}
	if len(list) > maxBulk {
		return b, failure(http.StatusRequestEntityTooLarge,
			fmt.Sprintf("Operations must have at most %d elements, got %d", maxBulk, len(list)))
	}
	ids := make(map[string]bool)
	for _, v := range list {
		members, ok := v.(map[string]any)
		if !ok {
			return b, badRequest(schema.InvalidSyntax, "each operation must be an object")
		}
		o := parseBulkOperation(members, types)
		if o.bulkID != "" && ids[o.bulkID] {
			return b, badRequest(schema.InvalidSyntax, "duplicate bulkId %q", schema.Clip(o.bulkID))
		}
		ids[o.bulkID] = true
		b.operations = append(b.operations, o)
	}
	for _, o := range b.operations {
		for needed := range o.needs {
			if !ids[needed] {
				o.refuse(badRequest(schema.InvalidValue, "no operation has the bulkId %q", schema.Clip(needed)))
			}
		}
	}
	return b, nil
}

func parseBulkOperation(members map[string]any, types []*schema.ResourceType) *bulkOperation {
	o := &bulkOperation{needs: make(map[string]bool)}
	texts := map[string]*string{"method": &o.method, "bulkid": &o.bulkID, "path": &o.path, "version": &o.version}
	for name, value := range members {
		name = strings.ToLower(name)
		if name == "data" {
			o.data = value
		} else if text := texts[name]; text != nil {
			if *text, _ = value.(string); *text == "" && value != nil {
				o.refuse(badRequest(schema.InvalidSyntax, "%s must be a string", name))
			}
		}
	}
	o.method = strings.ToUpper(o.method)
	o.path = "/" + strings.TrimPrefix(o.path, "/")
	collectNeeds(o.data, o.needs)
	endpoint, id, hasID := strings.Cut(o.path[1:], "/")
	if needed, ok := strings.CutPrefix(id, bulkPrefix); ok {
		o.needs[needed] = true
	}
	known := slices.ContainsFunc(types, func(rt *schema.ResourceType) bool { return rt.Endpoint == "/"+endpoint })
	switch {
	case !slices.Contains([]string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, o.method):
		o.refuse(badRequest(schema.InvalidSyntax, "method must be one of POST, PUT, PATCH, DELETE, got %q",
			schema.Clip(o.method)))
	case !known || strings.ContainsAny(id, "/?#%") || hasID != (o.method != http.MethodPost) ||
		(hasID && id == "") || strings.HasPrefix(id, "."):
		o.refuse(badRequest(schema.InvalidPath, "%s is not supported on path %q", o.method, schema.Clip(o.path)))
	case o.method == http.MethodPost && o.bulkID == "":
		o.refuse(badRequest(schema.InvalidSyntax, "POST requires a bulkId"))
	case o.method != http.MethodDelete && o.data == nil:
		o.refuse(badRequest(schema.InvalidSyntax, "%s requires data", o.method))
	}
	return o
}

func (o *bulkOperation) refuse(why *Error) {
	if o.refused == nil {
		o.refused = why
	}
}

func collectNeeds(v any, into map[string]bool) {
	switch v := v.(type) {
	case string:
		if needed, ok := strings.CutPrefix(v, bulkPrefix); ok {
			into[needed] = true
		}
	case []any:
		for _, inner := range v {
			collectNeeds(inner, into)
		}
	case map[string]any:
		for _, inner := range v {
			collectNeeds(inner, into)
		}
	}
}

// inOrder sorts each operation after those that it refers to and otherwise keeps the order.
// It refuses operations that refer to each other with 409 (RFC 7644 section 3.7.1).
func inOrder(operations []*bulkOperation) []*bulkOperation {
	byID := make(map[string]*bulkOperation)
	for _, o := range operations {
		byID[o.bulkID] = o
	}
	const visiting, done = 1, 2
	state := make(map[*bulkOperation]int)
	var order, path []*bulkOperation
	var visit func(*bulkOperation)
	visit = func(o *bulkOperation) {
		if state[o] == visiting {
			for _, member := range path[slices.Index(path, o):] {
				member.refuse(&Error{Status: http.StatusConflict, Detail: "circular bulkId reference"})
			}
			return
		}
		if state[o] == done {
			return
		}
		state[o], path = visiting, append(path, o)
		for _, needed := range slices.Sorted(maps.Keys(o.needs)) {
			if other := byID[needed]; other != nil {
				visit(other)
			}
		}
		state[o], path = done, path[:len(path)-1]
		order = append(order, o)
	}
	for _, o := range operations {
		visit(o)
	}
	return order
}

// bulkRun is the state of one bulk request.
type bulkRun struct {
	*Server
	request *http.Request
	ids     map[string]string // ids of created resources, by bulkId
	results map[*bulkOperation]operationResult
}

func (b *bulkRun) failed(o *bulkOperation) bool { return b.results[o].Status >= "300" }

func (b *bulkRun) execute(o *bulkOperation) {
	result := operationResult{Method: o.method, BulkID: o.bulkID}
	for needed := range o.needs {
		if b.ids[needed] == "" {
			o.refuse(&Error{
				Status: http.StatusConflict,
				Detail: "operation " + schema.Clip(needed) + ", which this operation refers to, failed",
			})
		}
	}
	if o.refused != nil {
		result.Status, result.Response = strconv.Itoa(o.refused.Status), bodyOf(o.refused)
		b.results[o] = result
		return
	}
	// Each operation counts against the tenant's rate limit. It is delayed, not refused.
	b.limits.pace(b.request.Context(), sessionOf(b.request).Tenant, b.RequestsPerSecond)
	recorder := b.serve(o)
	result.Status = strconv.Itoa(recorder.status)
	result.Version = recorder.header.Get("ETag")
	result.Location = recorder.header.Get("Location")
	if result.Location == "" && o.method != http.MethodPost {
		result.Location = sessionOf(b.request).base + b.resolve(o.path)
	}
	if recorder.status >= http.StatusMultipleChoices {
		result.Response = json.RawMessage(recorder.body.Bytes())
	} else if o.bulkID != "" {
		b.ids[o.bulkID] = result.Location[strings.LastIndex(result.Location, "/")+1:]
	}
	b.results[o] = result
}

// serve routes the operation like any other request.
func (b *bulkRun) serve(o *bulkOperation) *recorder {
	out := &recorder{header: make(http.Header), status: http.StatusOK}
	var body []byte
	if o.data != nil {
		var err error
		if body, err = json.Marshal(b.substitute(o.data)); err != nil {
			b.writeError(out, b.request, fmt.Errorf("encode a bulk operation: %w", err))
			return out
		}
	}
	// Clear the outer routing context: chi would otherwise route the rest of the outer path.
	ctx := context.WithValue(b.request.Context(), chi.RouteCtxKey, (*chi.Context)(nil))
	// The body of a successful operation is discarded: do not read the members.
	target := b.resolve(o.path) + "?excludedAttributes=members"
	req, err := http.NewRequestWithContext(ctx, o.method, target, bytes.NewReader(body))
	if err != nil {
		b.writeError(out, b.request, badRequest(schema.InvalidPath, "invalid path %q", schema.Clip(o.path)))
		return out
	}
	if o.version != "" {
		req.Header.Set("If-Match", o.version)
	}
	b.resources.ServeHTTP(out, req)
	return out
}

// substitute replaces bulkId references with ids.
func (b *bulkRun) substitute(v any) any {
	switch v := v.(type) {
	case string:
		if needed, ok := strings.CutPrefix(v, bulkPrefix); ok {
			return b.ids[needed]
		}
	case []any:
		for i := range v {
			v[i] = b.substitute(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = b.substitute(v[name])
		}
	}
	return v
}

func (b *bulkRun) resolve(path string) string {
	before, needed, ok := strings.Cut(path, bulkPrefix)
	if !ok {
		return path
	}
	return before + b.ids[needed]
}

// recorder is an http.ResponseWriter that stores the response.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
