package console

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/leaverhq/leaver/internal/api"
	"github.com/leaverhq/leaver/internal/apiclient"
	"github.com/leaverhq/leaver/internal/auth"
	"github.com/leaverhq/leaver/internal/cache"
	"github.com/leaverhq/leaver/internal/evidence"
	"github.com/leaverhq/leaver/internal/httpjson"
)

// request is a request for a page, with the client of its session.
type request struct {
	*http.Request
	*apiclient.Client
	tenant string // of the path; empty on pages of the installation
	health *cache.Cache[struct{}, readiness]
}

// of returns a path of the API below the tenant.
func (q request) of(path string) string { return apiclient.TenantPath(q.tenant) + path }

// get reads one object of the API.
func get[T any](q request, path string) (v T, err error) {
	err = q.Do(q.Context(), http.MethodGet, path, nil, &v)
	return v, err
}

// list reads one page of a list of the API.
func list[T any](q request, path string) ([]T, error) {
	some, err := first[T](q, path)
	return some.Items, err
}

// some are the items of a list that a page shows.
type some[T any] struct {
	Items []T
	More  bool // whether the list has more
}

// first reads the first page of a list of the API.
func first[T any](q request, path string) (some[T], error) {
	p, err := get[apiclient.Page[T]](q, path)
	return some[T]{p.Items, p.Next != ""}, err
}

// layout is what the template of a page shows.
type layout struct {
	Title, Tenant string
	Role          auth.Class
	Done          string // what a button has just done
	Live          bool   // whether the page is updated
	View          any
	// Operate and Audit report which buttons are shown; the API authorizes each call.
	Operate, Audit bool
	Token          string // the first part of its id
}

// problem is an error that a page shows.
type problem struct{ Heading, Detail string }

// Title implements [titled].
func (p problem) Title() string { return p.Heading }

// titled is a view that has a title of its own.
type titled interface{ Title() string }

// live is a view that is shown again while it changes.
type live interface{ Live() bool }

// parse parses the embedded templates. A page is a template with the layout.
func parse() map[string]*template.Template {
	names, err := templates.ReadDir("templates")
	if err != nil {
		panic(err) // they are embedded
	}
	pages := make(map[string]*template.Template)
	for _, entry := range names {
		name := strings.TrimSuffix(entry.Name(), ".html")
		if name == "layout" {
			continue
		}
		pages[name] = template.Must(template.New("").Funcs(functions()).
			ParseFS(templates, "templates/layout.html", "templates/"+entry.Name()))
	}
	return pages
}

// page returns the handler of a page. With Accept: text/event-stream it sends the page's content again as it changes.
func (s *Server) page(name string, read func(request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := s.request(r)
		if r.Header.Get("Accept") == eventStream {
			secret := sessionOf(r.Context()).secret
			if !s.streams.start(secret) {
				http.Error(w, "too many pages of this session are open", http.StatusTooManyRequests)
				return
			}
			defer s.streams.end(secret)
			s.stream(w, q, name, read)
			return
		}
		view, err := read(q)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.show(w, r, http.StatusOK, name, view)
	}
}

func (s *Server) request(r *http.Request) request {
	return request{health: s.health, Request: r, Client: &apiclient.Client{
		Base: "http://" + r.Host + api.BasePath, Token: sessionOf(r.Context()).secret,
		HTTP: &http.Client{Transport: inProcess{s.API}},
	}, tenant: chi.URLParam(r, "tenant")}
}

// show writes a page.
func (s *Server) show(w http.ResponseWriter, r *http.Request, status int, name string, view any) {
	body, err := s.render(r, name, "layout", view)
	if err != nil {
		s.Log.ErrorContext(r.Context(), "failed to render a page", "page", name, "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // html/template has escaped it
}

// render executes the part of a page's template: layout, or main, which is what changes.
func (s *Server) render(r *http.Request, name, part string, view any) ([]byte, error) {
	class := sessionOf(r.Context()).caller.Class
	l := layout{
		Title: titles()[name], Tenant: chi.URLParam(r, "tenant"), Role: class, View: view,
		Done:    done()[r.URL.Query().Get("done")],
		Operate: class == auth.ClassOperator, Audit: class == auth.ClassOperator || class == auth.ClassAuditor,
	}
	if class != "" {
		l.Token = sessionOf(r.Context()).caller.TokenID.String()[:8]
	}
	if own, ok := view.(titled); ok {
		l.Title = own.Title()
	}
	if changing, ok := view.(live); ok {
		l.Live = changing.Live()
	}
	var body bytes.Buffer
	err := s.pages[name].ExecuteTemplate(&body, part, l)
	return body.Bytes(), err
}

func titles() map[string]string {
	return map[string]string{
		"installation": "Installation", "attention": "Attention", "cascades": "Cascades", "connectors": "Connectors",
		"principals": "People and agents", "plan": "What would end", "timing": "Time to zero", "evidence": "Evidence",
		"tokens": "Settings and tokens", "secret": "Token issued", "sign-in": "Sign in", "signed-in": "Signed in",
	}
}

// fail writes the page of an error. A refusal by the API is shown unchanged.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var refused *apiclient.RefusalError
	if errors.As(err, &refused) && refused.Status == http.StatusUnauthorized {
		s.show(w, r, http.StatusForbidden, "error", problem{"Not permitted", "The API says: " + refused.Detail})
		return
	}
	if refused != nil {
		s.show(w, r, refused.Status, "error", problem{http.StatusText(refused.Status), refused.Detail})
		return
	}
	p := httpjson.ProblemOf(err)
	if p.Status >= http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
		s.Log.ErrorContext(r.Context(), "failed to serve the console", "path", r.URL.Path, "error", err)
	}
	s.show(w, r, p.Status, "error", problem{http.StatusText(p.Status), p.Detail})
}

const eventStream = "text/event-stream"

const (
	// minPoll is the shortest time between two reads of a page that is open in a browser.
	minPoll = 2 * time.Second
	// share is how many times longer than the read itself the time between two reads is, at least.
	share = 10
	// streamTime is how long one response of events lasts. Browsers ask again.
	streamTime = 80 * time.Second
)

// lines matches the ends of lines of server-sent events.
var lines = regexp.MustCompile(`\r\n|\r|\n`)

// stream sends the content of a page as a server-sent event whenever it has changed.
func (s *Server) stream(w http.ResponseWriter, q request, name string, read func(request) (any, error)) {
	w.Header().Set("Content-Type", eventStream)
	control := http.NewResponseController(w)
	end := time.After(streamTime)
	var sent []byte
	for {
		begun := time.Now()
		view, err := read(q)
		var body []byte
		if err == nil {
			body, err = s.render(q.Request, name, "main", view)
		}
		if err != nil {
			return // the browser asks again
		}
		if !bytes.Equal(body, sent) {
			if _, err := fmt.Fprintf(w, "data: %s\n\n", lines.ReplaceAll(body, []byte("\ndata: "))); err != nil {
				return
			}
			if control.Flush() != nil {
				return
			}
			sent = body
		}
		select {
		case <-q.Context().Done():
			return
		case <-end:
			return
		case <-s.Stopping:
			return
		case <-time.After(max(minPoll, share*time.Since(begun))):
		}
	}
}

func functions() template.FuncMap {
	return template.FuncMap{
		"time": stamp, "optional": func(t *time.Time) template.HTML {
			if t == nil {
				return "–"
			}
			return stamp(*t)
		},
		"seconds": func(s float64) string { return fmt.Sprintf("%.1f s", s) },
		"path":    func(parts ...string) string { return api.ConsolePath + "/" + joined(parts) },
		"short":   func(id fmt.Stringer) string { return id.String()[:8] },
		"join":    func(texts []string) string { return strings.Join(texts, ", ") },
		"rows":    func(tenant string, items any) map[string]any { return map[string]any{"Tenant": tenant, "Items": items} },
		// query marks a query that url.Values has encoded.
		"query": func(encoded string) template.URL { return template.URL(encoded) }, //nolint:gosec // encoded by url.Values
		"hex":   func(h evidence.Hash) string { return hex.EncodeToString(h[:]) },
		"clip":  clip,
		// A page that is updated must not change by itself, so that this is a whole hour.
		"inADay": func() string { return time.Now().Add(25 * time.Hour).Truncate(time.Hour).UTC().Format(formTime) },
	}
}

// clip shortens a label of a diagram.
func clip(label string) string {
	if runes := []rune(label); len(runes) > maxLabel {
		return string(runes[:maxLabel]) + "…"
	}
	return label
}

func joined(parts []string) string {
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
	}
	return strings.Join(escaped, "/")
}

// stamp returns the element of a time.
func stamp(t time.Time) template.HTML {
	t = t.UTC()
	text := `<time datetime="` + t.Format(time.RFC3339Nano) + `">` + t.Format(time.DateTime) + ` UTC</time>`
	return template.HTML(text) //nolint:gosec // digits
}
