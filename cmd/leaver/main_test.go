package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// fake answers what a test tells it: the API itself is tested where it lives.
func fake(t *testing.T, answers map[string]string, status int) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			body = `{"status":404,"detail":"no such resource"}`
		} else if status != 0 {
			w.WriteHeader(status)
		}
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	t.Setenv("LEAVER_URL", server.URL)
	t.Setenv("LEAVER_TOKEN", "leaver_operator_test")
}

const cascade = `{"id":"4a3ec2c4-a334-4ead-a709-306d3154f984","principalId":"01a20ac5-5550-735f-82e8-afd06d99cd22","outcome":"%","survivors":1,"createdAt":"2026-11-23T22:00:00Z","closedAt":"2026-11-23T22:00:01Z"}`

func TestExitCodes(t *testing.T) {
	show := "GET /v1/tenants/acme/cascades/4a3ec2c4-a334-4ead-a709-306d3154f984"
	wait := []string{"cascade", "wait", "--tenant", "acme", "--timeout", "0s", "4a3ec2c4-a334-4ead-a709-306d3154f984"}
	for name, c := range map[string]struct {
		args    []string
		answers map[string]string
		status  int
		want    int
	}{
		"ok":                     {args: []string{"tenant", "list"}, answers: map[string]string{"GET /v1/tenants": `{"items":[]}`}, want: exitOK},
		"an error":               {args: []string{"tenant", "list"}, answers: map[string]string{"GET /v1/tenants": `{"detail":"x"}`}, status: 503, want: exitError},
		"an unknown verb":        {args: []string{"tenant", "explode"}, want: exitUsage},
		"an unknown flag":        {args: []string{"tenant", "list", "--nope"}, want: exitUsage},
		"a missing argument":     {args: []string{"tenant", "create"}, want: exitUsage},
		"a missing flag":         {args: []string{"schema", "list"}, want: exitUsage},
		"an unknown command":     {args: []string{"nonsense"}, want: exitUsage},
		"nothing to set":         {args: []string{"tenant", "set", "acme"}, want: exitUsage},
		"a value that is none":   {args: []string{"tenant", "set", "acme", "--profile", "x"}, answers: map[string]string{"PATCH /v1/tenants/acme": `{"detail":"x"}`}, status: 422, want: exitUsage},
		"a bad output":           {args: []string{"tenant", "list", "-o", "xml"}, want: exitUsage},
		"not found":              {args: []string{"token", "revoke", "--tenant", "acme", "x"}, want: exitNotFound},
		"a refused token":        {args: []string{"tenant", "list"}, answers: map[string]string{"GET /v1/tenants": `{"detail":"x"}`}, status: 401, want: exitAuth},
		"completed":              {args: wait, answers: map[string]string{show: strings.Replace(cascade, "%", "completed", 1)}, want: exitOK},
		"survivors":              {args: wait, answers: map[string]string{show: strings.Replace(cascade, "%", "failed", 1)}, want: exitSurvivors},
		"still running":          {args: wait, answers: map[string]string{show: strings.Replace(strings.Replace(cascade, "%", "running", 1), `,"closedAt":"2026-11-23T22:00:01Z"`, "", 1)}, want: exitRunning},
		"a re-run without a why": {args: []string{"cascade", "rerun", "--tenant", "acme", "x"}, want: exitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			fake(t, c.answers, c.status)
			var stdout, stderr bytes.Buffer
			if got := run(t.Context(), c.args, &stdout, &stderr); got != c.want {
				t.Errorf("exit code %d, want %d; stderr: %s", got, c.want, &stderr)
			}
		})
	}
}

func TestWithoutATokenItSaysHowToGetOne(t *testing.T) {
	t.Setenv("LEAVER_TOKEN", "")
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), []string{"tenant", "list"}, &stdout, &stderr); got != exitAuth || !strings.Contains(stderr.String(), "leaver bootstrap") {
		t.Errorf("exit code %d, stderr %q", got, &stderr)
	}
}

func TestJSONIsAloneOnStdout(t *testing.T) {
	fake(t, map[string]string{"POST /v1/tenants/acme/tokens": `{"id":"4a3ec2c4-a334-4ead-a709-306d3154f984","class":"scim","secret":"leaver_scim_x"}`}, 201)
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), []string{"token", "create", "--tenant", "acme", "--class", "scim", "-o", "json"}, &stdout, &stderr); got != exitOK {
		t.Fatalf("exit code %d: %s", got, &stderr)
	}
	var token map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &token); err != nil || token["secret"] != "leaver_scim_x" {
		t.Errorf("stdout %q: %v", &stdout, err)
	}
}

func TestATableInAPipeIsTabSeparated(t *testing.T) {
	fake(t, map[string]string{"GET /v1/tenants": `{"items":[{"name":"acme","profile":"entra","id":"4a3ec2c4-a334-4ead-a709-306d3154f984","createdAt":"2026-11-23T22:00:00Z"}]}`}, 0)
	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{"tenant", "list"}, &stdout, &stderr)
	if want := "acme\tentra\t4a3ec2c4-a334-4ead-a709-306d3154f984\t2026-11-23T22:00:00Z\tprivate\t-\t-\t\n"; stdout.String() != want {
		t.Errorf("%q, want %q", &stdout, want)
	}
}

func TestTheProbeTellsByItsExitCode(t *testing.T) {
	// A provider of nothing: it has a ServiceProviderConfig, and everything else wrong.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ServiceProviderConfig" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = w.Write([]byte(`{"patch":{"supported":true}}`))
	}))
	t.Cleanup(server.Close)
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), []string{"scim", "test", server.URL, "--token", "x", "-o", "json"}, &stdout, &stderr); got != exitError {
		t.Errorf("exit code %d: %s", got, &stderr)
	}
	var results []map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &results); err != nil || len(results) < 50 {
		t.Errorf("%d results on stdout: %v", len(results), err)
	}
	for _, r := range results {
		if r["set"] == "okta" && r["outcome"] != "failed" {
			t.Errorf("%v %v against a provider of nothing", r["name"], r["outcome"])
		}
	}
	t.Setenv("LEAVER_SCIM_TOKEN", "")
	for _, args := range [][]string{{"scim", "test", server.URL}, {"scim", "test", server.URL, "--token", "x", "--set", "ping"}} {
		if got := run(t.Context(), args, &stdout, &stderr); got != exitUsage {
			t.Errorf("%v: exit code %d, want %d", args, got, exitUsage)
		}
	}
	if got := run(t.Context(), []string{"scim", "test", "http://127.0.0.1:1", "--token", "x"}, &stdout, &stderr); got != exitError {
		t.Errorf("an address where nobody is: exit code %d", got)
	}
}
