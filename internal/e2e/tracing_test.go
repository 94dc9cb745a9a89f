package e2e

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// traces is a collector of OTLP over HTTP.
type traces struct {
	mu    sync.Mutex
	spans []*otlp.Span
	down  bool
}

// collectTraces starts a collector, and names it in the environment.
func collectTraces(t *testing.T) *traces {
	t.Helper()
	c := &traces{}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50") // milliseconds
	return c
}

func (c *traces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down || proto.Unmarshal(body, &request) != nil {
		http.Error(w, "unavailable", http.StatusBadRequest) // not retried
		return
	}
	for _, of := range request.GetResourceSpans() {
		for _, scope := range of.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
}

// path returns the names of the spans from the outermost to the first with a name, or nil if there is none.
func (c *traces) path(name string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	byID := make(map[string]*otlp.Span)
	for _, s := range c.spans {
		byID[string(s.GetSpanId())] = s
	}
	for _, s := range c.spans {
		if s.GetName() != name {
			continue
		}
		var path []string
		for ; s != nil; s = byID[string(s.GetParentSpanId())] {
			path = append([]string{s.GetName()}, path...)
		}
		return path
	}
	return nil
}

// TestTracing_FollowsADeactivationToTheDownstream follows one trace from the request of an identity provider to the
// request that ends a credential.
func TestTracing_FollowsADeactivationToTheDownstream(t *testing.T) {
	c := collectTraces(t)
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, "", "secret-reference")
	i.deactivate(ada)
	i.closed(ada)
	want := "PATCH /scim/v2/Users/{id} > StartWorkflow:Leaver > RunWorkflow:Leaver > StartActivity:Revoke > RunActivity:Revoke > POST"
	stacktest.Eventually(t, 10*time.Second, want, func() bool {
		path := c.path("POST")
		return len(path) > 0 && path[0] != "POST" && path[0] != "RunActivity:Revoke" && strings.Join(path, " > ") == want
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		for _, hidden := range []string{"ada@example.com", "secret-reference", "/Users/" + ada, "Go-http-client"} {
			if strings.Contains(s.String(), hidden) {
				t.Errorf("a span has %s: %v", hidden, s)
			}
		}
	}
}

// TestTracing_CallerChoosesNoTrace sends a request with a trace that the caller has chosen.
func TestTracing_CallerChoosesNoTrace(t *testing.T) {
	c := collectTraces(t)
	i := installAPI(t)
	const chosen = "0af7651916cd43dd8448eb211c80319c"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, i.url+"/scim/v2/Users", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+i.scim)
	req.Header.Set("traceparent", "00-"+chosen+"-b7ad6b7169203331-01")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	stacktest.Eventually(t, 10*time.Second, "the span of the request", func() bool { return c.path("GET /scim/v2/Users") != nil })
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) == chosen {
			t.Errorf("%s is part of the caller's trace", s.GetName())
		}
	}
}

// TestTracing_CollectorThatIsDownDelaysNothing deactivates while the collector refuses spans.
func TestTracing_CollectorThatIsDownDelaysNothing(t *testing.T) {
	c := collectTraces(t)
	c.down = true
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	ada := i.createUser("ada@example.com")
	i.hold(p, ada, "", "a")
	i.deactivate(ada)
	if closed := i.closed(ada); closed.Outcome != "completed" {
		t.Errorf("the cascade is %s, want completed", closed.Outcome)
	}
	stacktest.Eventually(t, 10*time.Second, "the warning", func() bool {
		return strings.Contains(i.logs.String(), "failed to send traces")
	})
}
