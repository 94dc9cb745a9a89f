package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
)

// TestLogin_KeepsTheSessionThatTheBrowserBrings plays the browser: it follows the link to the loopback port, with a wrong
// state first.
func TestLogin_KeepsTheSessionThatTheBrowserBrings(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("LEAVER_TOKEN", "")
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/v1/sessions" && strings.Contains(string(body), "leaver_sign-in_x"):
			_, _ = io.WriteString(w, `{"token":"leaver_session_y"}`)
		case r.URL.Path == "/v1/tenants" && r.Header.Get("Authorization") == "Bearer leaver_session_y":
			_, _ = io.WriteString(w, `{"items":[]}`)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer api.Close()
	stderr, writes := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"login", "--url", api.URL}, io.Discard, writes)
		_ = writes.Close()
	}()
	lines := bufio.NewScanner(stderr)
	var link *url.URL
	for link == nil && lines.Scan() {
		if strings.HasPrefix(lines.Text(), api.URL) {
			link, _ = url.Parse(lines.Text())
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	if link == nil || link.Path != "/console/login" {
		t.Fatalf("the link is %v", link)
	}
	back := func(state string) int {
		query := url.Values{"state": {state}, "signIn": {"leaver_sign-in_x"}}
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet,
			"http://127.0.0.1:"+link.Query().Get("port")+"/?"+query.Encode(), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if status := back("of another site"); status != http.StatusForbidden {
		t.Errorf("another state answered %d", status)
	}
	if status := back(link.Query().Get("state")); status != http.StatusOK {
		t.Errorf("the browser got %d", status)
	}
	if got := <-code; got != exitOK {
		t.Fatalf("exit code %d", got)
	}
	path, err := sessionFile()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the session's file is %v, %v", info, err)
	}
	if got := run(t.Context(), []string{"tenant", "list", "--url", api.URL}, io.Discard, io.Discard); got != exitOK {
		t.Errorf("the next command does not use the session: exit code %d", got)
	}
	if got := run(t.Context(), []string{"tenant", "list", "--url", api.URL + "/other"}, io.Discard, io.Discard); got != exitAuth {
		t.Errorf("another installation gets the session: exit code %d", got)
	}
}
