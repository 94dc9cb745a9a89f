package console

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/leaverhq/leaver/internal/cascade"
	"github.com/leaverhq/leaver/internal/directory"
)

func TestStreams_AreLimitedBySession(t *testing.T) {
	var s streams
	for range maxSessionStreams {
		if !s.start("a") {
			t.Fatal("a page is refused below the limit")
		}
	}
	if s.start("a") {
		t.Error("a session keeps more pages up to date than the limit")
	}
	if !s.start("b") {
		t.Error("the limit of one session is that of another")
	}
	s.end("a")
	if !s.start("a") {
		t.Error("a page that was closed still counts")
	}
	for n := range maxStreams {
		s.start(strings.Repeat("x", n))
	}
	if s.start("c") {
		t.Error("all sessions together have no limit")
	}
}

// TestStream_TextDoesNotEndTheEvent streams a view whose text has each kind of line end: a browser must read one event.
func TestStream_TextDoesNotEndTheEvent(t *testing.T) {
	stopping := make(chan struct{})
	s := &Server{Stopping: stopping, Log: slog.New(slog.DiscardHandler), pages: parse()}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.stream(w, s.request(r), "error", func(request) (any, error) {
			return problem{"x\r\rretry: 999999999\revent: y\r\n\ndata: z", "end"}, nil
		})
	}))
	defer server.Close()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	close(stopping) // the stream ends after its first event
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(body), "event: y") {
		t.Fatalf("%v: %s", err, body)
	}
	if strings.Contains(string(body), "\r") || strings.Count(string(body), "\n\n") != 1 {
		t.Errorf("a browser reads several events:\n%q", body)
	}
	for line := range strings.Lines(strings.TrimSpace(string(body))) {
		if !strings.HasPrefix(line, "data: ") {
			t.Errorf("the line %q is not of the event's data", line)
		}
	}
}

func TestGraph_PlacesEachAgentOnceBelowItsParent(t *testing.T) {
	named := func(name string) directory.Named { return directory.Named{ID: uuid.New(), Name: name} }
	ada, a, sub, other, lost := named("ada"), named("a"), named("sub"), named("other"), named("lost")
	parents := map[uuid.UUID]uuid.UUID{sub.ID: a.ID, lost.ID: uuid.New()}
	g := newGraph(ada, []directory.Named{a, other, sub, lost}, parents)
	depths := make(map[string]int)
	for _, n := range g.Nodes {
		depths[n.Name] = (n.X - 10) / graphStep
	}
	want := map[string]int{"ada": 0, "a": 1, "sub": 2, "other": 1, "lost": 1}
	for name, depth := range want {
		if depths[name] != depth {
			t.Errorf("%s is at depth %d, want %d", name, depths[name], depth)
		}
	}
	if len(g.Nodes) != len(want) {
		t.Errorf("%d nodes, want %d", len(g.Nodes), len(want))
	}
	many := make([]directory.Named, maxGraph+5)
	for n := range many {
		many[n] = named("x")
	}
	if g := newGraph(ada, many, nil); g.More != 5 || len(g.Nodes) != maxGraph+1 {
		t.Errorf("%d nodes and %d more, want %d and 5", len(g.Nodes), g.More, maxGraph+1)
	}
}

func TestPlot_KeepsEveryMarkInside(t *testing.T) {
	var p plot
	p.add("fast", cascade.Times{Median: 1, P95: 2, Worst: 3})
	p.add("slow", cascade.Times{Median: 100, P95: 5000, Worst: 9000})
	p.scale(300)
	for _, b := range p.Rows {
		for _, x := range []float64{b.Median, b.P95, b.Worst, p.Target} {
			if x < labelWidth || x > p.Width {
				t.Errorf("%s has a mark at %v, outside of %v to %v", b.Label, x, labelWidth, p.Width)
			}
		}
		if b.Bar() < 0 || b.Median > b.P95 || b.P95 > b.Worst {
			t.Errorf("%s is not in order: %+v", b.Label, b)
		}
	}
}

func TestPages_HaveATemplateAndATitle(t *testing.T) {
	pages := parse()
	for name := range titles() {
		if pages[name] == nil {
			t.Errorf("no template for the page %s", name)
		}
	}
}
