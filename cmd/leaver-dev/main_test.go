package main

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestDrill_EndsEverythingAndPrintsProof checks the README's promise: no credential of Ada's
// agents works after the drill, and the table shows it.
func TestDrill_EndsEverythingAndPrintsProof(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole stack")
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"--once", "--ephemeral"}, &stdout, &stderr); code != 0 {
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
	if code := run(t.Context(), []string{"--nonsense"}, &stdout, &stderr); code == 0 ||
		!strings.Contains(stderr.String(), "--nonsense") {
		t.Errorf("exit code %d, stderr %q", code, &stderr)
	}
}
