package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// The fixed chain of the tests was exported once, with its key.
func files(t *testing.T, edit func(export []byte)) (export, keys string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "evidence.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	edit(raw)
	export = filepath.Join(t.TempDir(), "evidence.jsonl")
	if err := os.WriteFile(export, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return export, filepath.Join("testdata", "keys.txt")
}

func TestEvidenceVerify_ExitCodes(t *testing.T) {
	intact := func([]byte) {}
	export, keys := files(t, intact)
	changed, _ := files(t, func(raw []byte) { raw[len(raw)/2] ^= 1 })
	other := filepath.Join(t.TempDir(), "other.txt")
	public := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	line := uuid.NewString() + " " + base64.StdEncoding.EncodeToString(public) + "\n"
	if err := os.WriteFile(other, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want int
		says string
	}{
		"intact":        {[]string{export, "--keys", keys}, exitOK, "last record"},
		"changed":       {[]string{changed, "--keys", keys}, exitError, "FAULT"},
		"another key":   {[]string{export, "--keys", other}, exitError, "which is not in --keys"},
		"no keys":       {[]string{export}, exitUsage, ""},
		"keys of a key": {[]string{export, "--keys", export}, exitUsage, ""},
		"no such file":  {[]string{export + "x", "--keys", keys}, exitUsage, ""},
		"a known record that is missing": {
			[]string{export, "--keys", keys, "--known", "99:" + strings.Repeat("0", 64)}, exitError, "which is in --known, is missing",
		},
		"no hash": {[]string{export, "--keys", keys, "--known", "99"}, exitUsage, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			got := run(t.Context(), append([]string{"evidence", "verify"}, c.args...), &stdout, &stderr)
			if got != c.want || !strings.Contains(stdout.String(), c.says) {
				t.Errorf("exit code %d, want %d and %q; stdout %q, stderr %q", got, c.want, c.says, &stdout, &stderr)
			}
		})
	}
}

const (
	reportPrincipal = "019a0000-0000-7000-8000-000000000001"
	reportCascade   = "019a0000-0000-7000-8000-000000000002"
	provenItem      = "019a0000-0000-7000-8000-000000000003"
	failedItem      = "019a0000-0000-7000-8000-000000000004"
)

// reportAnswers are the API's answers about a principal with a hostile name.
func reportAnswers() map[string]string {
	at := "/v1/tenants/acme"
	return map[string]string{
		"POST " + at + "/evidence/exports": `{"statement":{"type":"x","tenant":"` + reportPrincipal + `","sequence":7,` +
			`"hash":"` + strings.Repeat("ab", 32) + `","key":"` + reportPrincipal + `","at":"2026-11-29T22:00:00Z"},"signature":""}`,
		"GET " + at + "/cascades": `{"items":[{"id":"` + reportCascade + `","principalId":"` + reportPrincipal + `",` +
			`"principalName":"<script>alert(1)</script>","kind":"leaver","trigger":"deactivated","actor":"scim-token/1",` +
			`"outcome":"failed","createdAt":"2026-11-29T22:00:00Z","closedAt":"2026-11-29T22:05:00Z",` +
			`"notAsked":[{"connector":"crm","reason":"connection refused"}]}]}`,
		"GET " + at + "/cascades/" + reportCascade + "/evidence": `{"items":[` +
			`{"itemId":"` + provenItem + `","attempt":1,"step":"probe-before","outcome":"alive","at":"2026-11-29T22:00:01Z"},` +
			`{"itemId":"` + provenItem + `","attempt":1,"step":"revoke","outcome":"done","at":"2026-11-29T22:00:02Z"},` +
			`{"itemId":"` + provenItem + `","attempt":1,"step":"probe-after","outcome":"dead","detail":"answers 401",` +
			`"at":"2026-11-29T22:00:03Z"}]}`,
		"GET " + at + "/cascades/" + reportCascade + "/acts": `{"items":[{"actor":"operator-token/1","verb":"retry",` +
			`"reason":"INC-17","at":"2026-11-29T22:04:00Z"}]}`,
		"GET " + at + "/credentials": `{"items":[` +
			`{"id":"` + provenItem + `","principalId":"` + reportPrincipal + `","kind":"api_key","connector":"platform",` +
			`"reference":"key-1","state":"verified"},` +
			`{"id":"` + failedItem + `","principalId":"` + reportPrincipal + `","kind":"session","connector":"crm",` +
			`"reference":"s","state":"failed","reason":"the downstream refused"}]}`,
	}
}

func TestEvidenceReport_SaysWhatIsProvenAndWhatIsNot(t *testing.T) {
	fake(t, reportAnswers(), 0)
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), []string{"evidence", "report", "--tenant", "acme", reportPrincipal}, &stdout, &stderr); got != exitOK {
		t.Fatalf("exit code %d: %s", got, &stderr)
	}
	page := stdout.String()
	for _, want := range []string{
		"2 credentials and scheduled runs: 1 ended and proven dead, 1 failed.", "2026-11-29T22:00:03Z", "answers 401",
		"the downstream refused", "retry by operator-token/1: INC-17", "crm: connection refused",
		"&lt;script&gt;alert(1)&lt;/script&gt;", "7, SHA-256 abab",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	for _, never := range []string{"<script", "http://", "https://", "src=", "href="} {
		if strings.Contains(page, never) {
			t.Errorf("the report has %q: it must be self-contained", never)
		}
	}
}

func TestEvidenceExport_CSVEvaluatesToNothing(t *testing.T) {
	var file bytes.Buffer
	w := newCSV(&file)
	if err := w.row([]string{"=cmd|' /C calc'!A0", "+1", "-1", "@x", "plain"}); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&file).ReadAll()
	if err != nil || len(rows) != 1 {
		t.Fatal(err)
	}
	for _, cell := range rows[0][:4] {
		if !strings.HasPrefix(cell, "'") {
			t.Errorf("a spreadsheet evaluates %q", cell)
		}
	}
}
