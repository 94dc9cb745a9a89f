package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// unit returns a copy of the unit for an instance, with a program that exists.
func unit(t *testing.T, edit func(text string) string) string {
	t.Helper()
	raw, err := os.ReadFile("leaver@.service")
	if err != nil {
		t.Fatal(err)
	}
	text := edit(strings.ReplaceAll(string(raw), "/usr/local/bin/leaver", "/bin/true"))
	path := filepath.Join(t.TempDir(), "leaver@serve.service")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUnit_IsValidAndConfined lets systemd check the unit, and rate its confinement from 0 (best) to 10.
func TestUnit_IsValidAndConfined(t *testing.T) {
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed (Debian's package systemd)")
	}
	analyze := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
		return string(out), err
	}
	path := unit(t, func(text string) string { return text })
	if out, err := analyze("verify", path); err != nil || out != "" {
		t.Errorf("the unit is not valid: %v\n%s", err, out)
	}
	// The threshold is in tenths.
	if out, err := analyze("security", "--offline=true", "--no-pager", "--threshold=15", path); err != nil {
		t.Errorf("the unit is not confined enough: %v\n%s", err, out)
	}
	misspelt := unit(t, func(text string) string { return strings.Replace(text, "ProtectHome=", "ProtectHom=", 1) })
	if out, _ := analyze("verify", misspelt); !strings.Contains(out, "ProtectHom") {
		t.Errorf("a misspelt setting is not found: %q", out)
	}
	open := unit(t, func(text string) string { return strings.Replace(text, "CapabilityBoundingSet=\n", "", 1) })
	if _, err := analyze("security", "--offline=true", "--no-pager", "--threshold=15", open); err == nil {
		t.Error("a unit with all capabilities counts as confined")
	}
}
