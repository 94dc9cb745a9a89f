package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDrill_EndsEverythingAndPrintsProof checks the README's promise: no credential of Ada's
// agents works after the drill, and the table shows it.
func TestDrill_EndsEverythingAndPrintsProof(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole stack")
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--once", "--ephemeral"}, strings.NewReader(""), &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d\n%s\n%s", code, &stdout, &stderr)
	}
	for _, want := range []string{
		"rotated: the old login is refused (SQLSTATE 28P01), Bob's new one works", "lied; revoked again, it answers 401",
		"found by its label, claimed, and refused: SQLSTATE 28P01", "agent outreach-follow-up",
		"orphaned: nothing new can be registered for it", "she is on Engineering, and may deploy",
		"the platform answers 401; her other key works",
		"session-revoked at the commit", "the provider alone says active: true; leaver, asked instead, says inactive", "invalid_grant",
		"the MCP server alone answers 200 for 24 h more; a proxy that asks leaver answers 403",
		"the application's SCIM server says active: false", "the broker forgot it, and the vendor still says active: true",
		"the session is cut, the login refused: SQLSTATE 28",
		"the schedule is gone, its run", "the cascade closed: completed", "SCIM base URL", "/namespaces/leaver/workflows/",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, &stdout)
		}
	}
	// The reason depends on whether the cascade has suspended the agent before the decision.
	if !regexp.MustCompile(`deny \((owner_gone|agent_suspended)\) right after`).Match(stdout.Bytes()) {
		t.Errorf("the output lacks the denial:\n%s", &stdout)
	}
	if _, err := exec.LookPath("redis-server"); err == nil && !strings.Contains(stdout.String(), "its login is refused: WRONGPASS") {
		t.Errorf("the output lacks the cache:\n%s", &stdout)
	}
	if strings.Contains(stdout.String(), "STILL ALIVE") || strings.Contains(stdout.String(), "survivor") {
		t.Errorf("something survived:\n%s", &stdout)
	}
}

func TestRun_ReportsUnknownFlagOnStderr(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--nonsense"}, strings.NewReader(""), &stdout, &stderr); code == 0 ||
		!strings.Contains(stderr.String(), "--nonsense") {
		t.Errorf("exit code %d, stderr %q", code, &stderr)
	}
}

// TestBreak_ConsoleRerunsTheCascadeToGreen breaks the OAuth server, follows the printed link to the console, repairs the
// server by Enter, and presses Re-run.
func TestBreak_ConsoleRerunsTheCascadeToGreen(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole stack")
	}
	ctx, stop := context.WithCancel(t.Context())
	keyboard, press := io.Pipe()
	screen, prints := io.Pipe()
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"--ephemeral", "--break", "oauth2"}, keyboard, prints, io.Discard) }()
	defer func() { stop(); <-code }()
	lines := bufio.NewScanner(screen)
	await := func(text string) string {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return lines.Text()
			}
		}
		t.Fatalf("the demonstration does not print %q", text)
		return ""
	}
	await("the cascade closed: failed")
	base, secret, _ := strings.Cut(strings.Fields(await("Console "))[1], "/console/sign-in#")
	tenant := regexp.MustCompile(`--tenant (\S+) (\S+)$`).FindStringSubmatch(await("cascade show"))
	await("Press Enter")
	go func() { _, _ = io.Copy(io.Discard, screen) }()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	see := func(method, path string, form url.Values) string {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, method, base+"/console"+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		resp, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s answered %d: %s %v", method, path, resp.StatusCode, body, err)
		}
		return string(body)
	}
	see(http.MethodPost, "/sign-in", url.Values{"secret": {secret}})
	if page := see(http.MethodGet, "/tenants/"+tenant[1]+"/", nil); !strings.Contains(page, "Failed cascades") ||
		!strings.Contains(page, "ada.lovelace@example.com") {
		t.Fatalf("the console does not show the failed cascade: %s", page)
	}
	cascade := "/tenants/" + tenant[1] + "/cascades/" + tenant[2]
	if page := see(http.MethodGet, cascade, nil); !strings.Contains(page, "the server cannot revoke this type of token") {
		t.Errorf("the page of the cascade does not say why: %s", page)
	}
	if _, err := io.WriteString(press, "\n"); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for page := see(http.MethodPost, cascade+"/rerun", url.Values{"reason": {"the server is repaired"}}); ; {
		if strings.Contains(page, `<span class="state completed">`) && !strings.Contains(page, `<span class="state failed">`) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the cascade is not green: %s", page)
		}
		<-time.After(200 * time.Millisecond)
		page = see(http.MethodGet, cascade, nil)
	}
}
