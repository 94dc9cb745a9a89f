package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fake serves the answers, by method and path, as the API that the CLI calls. A status other than
// 0 replaces 200.
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

const cascadeAnswer = `{"id":"4a3ec2c4-a334-4ead-a709-306d3154f984","principalId":"01a20ac5-5550-735f-82e8-afd06d99cd22","outcome":"%",` +
	`"survivors":1,"createdAt":"2026-11-23T22:00:00Z","closedAt":"2026-11-23T22:00:01Z"}`

func TestRun_ExitCodes(t *testing.T) {
	show := "GET /v1/tenants/acme/cascades/4a3ec2c4-a334-4ead-a709-306d3154f984"
	wait := []string{"cascade", "wait", "--tenant", "acme", "--timeout", "0s", "4a3ec2c4-a334-4ead-a709-306d3154f984"}
	for name, c := range map[string]struct {
		args    []string
		answers map[string]string
		status  int
		want    int
	}{
		"ok": {args: []string{"tenant", "list"}, answers: map[string]string{"GET /v1/tenants": `{"items":[]}`}, want: exitOK},
		"an error": {
			args: []string{"tenant", "list"}, answers: map[string]string{"GET /v1/tenants": `{"detail":"x"}`}, status: 503, want: exitError,
		},
		"an unknown verb":    {args: []string{"tenant", "explode"}, want: exitUsage},
		"an unknown flag":    {args: []string{"tenant", "list", "--nope"}, want: exitUsage},
		"a missing argument": {args: []string{"tenant", "create"}, want: exitUsage},
		"a missing flag":     {args: []string{"schema", "list"}, want: exitUsage},
		"an unknown command": {args: []string{"nonsense"}, want: exitUsage},
		"nothing to set":     {args: []string{"tenant", "set", "acme"}, want: exitUsage},
		"an invalid value": {
			args:    []string{"tenant", "set", "acme", "--profile", "x"},
			answers: map[string]string{"PATCH /v1/tenants/acme": `{"detail":"x"}`}, status: 422, want: exitUsage,
		},
		"an unknown output": {args: []string{"tenant", "list", "-o", "xml"}, want: exitUsage},
		"not found":         {args: []string{"token", "revoke", "--tenant", "acme", "x"}, want: exitNotFound},
		"a refused token": {
			args: []string{"tenant", "list"}, answers: map[string]string{"GET /v1/tenants": `{"detail":"x"}`}, status: 401, want: exitAuth,
		},
		"completed": {
			args: wait, answers: map[string]string{show: strings.Replace(cascadeAnswer, "%", "completed", 1)}, want: exitOK,
		},
		"survivors": {
			args: wait, answers: map[string]string{show: strings.Replace(cascadeAnswer, "%", "failed", 1)}, want: exitSurvivors,
		},
		"still running": {
			args:    wait,
			answers: map[string]string{show: strings.Replace(strings.Replace(cascadeAnswer, "%", "running", 1), `,"closedAt":"2026-11-23T22:00:01Z"`, "", 1)}, want: exitRunning,
		},
		"a rerun without reason": {args: []string{"cascade", "rerun", "--tenant", "acme", "x"}, want: exitUsage},
		"a rerun without IDs":    {args: []string{"cascade", "rerun", "--tenant", "acme", "--reason", "x"}, want: exitUsage},
		"a rerun with both": {
			args: []string{"cascade", "rerun", "--tenant", "acme", "--reason", "x", "--failed", "x"}, want: exitUsage,
		},
		"a selection with an ID": {
			args: []string{"cascade", "rerun", "--tenant", "acme", "--reason", "x", "--connector", "crm", "x"}, want: exitUsage,
		},
		"a waiver without an end": {
			args: []string{"cascade", "waive", "--tenant", "acme", "--item", "x", "--reason", "x", "x"}, want: exitUsage,
		},
		"an end without a reason": {args: []string{"principal", "end", "--tenant", "acme", "ada@example.com"}, want: exitUsage},
		"an unknown principal": {
			args:    []string{"principal", "end", "--tenant", "acme", "--dry-run", "ada@example.com"},
			answers: map[string]string{"GET /v1/tenants/acme/principals": `{"items":[]}`}, want: exitNotFound,
		},
		"a release without hold": {
			args:    []string{"hold", "approve", "--tenant", "acme", "--reason", "x"},
			answers: map[string]string{"POST /v1/tenants/acme/holds/approve": `{"detail":"x"}`}, status: 409, want: exitError,
		},
		"an invalid import": {
			args:    []string{"credential", "import", "--tenant", "acme", "main_test.go"},
			answers: map[string]string{"POST /v1/tenants/acme/import": `{"detail":"x","errors":[{"line":3,"detail":"y"}]}`}, status: 422, want: exitUsage,
		},
		"rules without a file": {args: []string{"mapping", "apply", "--tenant", "acme", "--reason", "x"}, want: exitUsage},
		"rules without a reason": {
			args: []string{"mapping", "apply", "--tenant", "acme", "-f", "main_test.go"}, want: exitUsage,
		},
		"invalid rules": {
			args:    []string{"mapping", "apply", "--tenant", "acme", "-f", "main_test.go", "--reason", "x"},
			answers: map[string]string{"PUT /v1/tenants/acme/mapping": `{"detail":"line 2, column 5: x"}`}, status: 422, want: exitUsage,
		},
		"no rules yet":            {args: []string{"mapping", "show", "--tenant", "acme"}, want: exitNotFound},
		"a test without a user":   {args: []string{"mapping", "test", "--tenant", "acme"}, want: exitUsage},
		"restore without reason":  {args: []string{"principal", "restore", "--tenant", "acme", "ada"}, want: exitUsage},
		"bootstrap of class scim": {args: []string{"bootstrap", "--class", "scim"}, want: exitUsage},
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

func TestClient_MissingTokenNamesBootstrap(t *testing.T) {
	t.Setenv("LEAVER_TOKEN", "")
	t.Setenv("XDG_CONFIG_HOME", t.TempDir()) // no session
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), []string{"tenant", "list"}, &stdout, &stderr); got != exitAuth ||
		!strings.Contains(stderr.String(), "leaver bootstrap") {
		t.Errorf("exit code %d, stderr %q", got, &stderr)
	}
}

func TestPrint_WritesOnlyJSONToStdout(t *testing.T) {
	fake(t, map[string]string{
		"POST /v1/tenants/acme/tokens": `{"id":"4a3ec2c4-a334-4ead-a709-306d3154f984","class":"scim",` +
			`"secret":"leaver_scim_x"}`,
	}, 201)
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), []string{"token", "create", "--tenant", "acme", "--class", "scim", "-o", "json"},
		&stdout, &stderr); got != exitOK {
		t.Fatalf("exit code %d: %s", got, &stderr)
	}
	var token map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &token); err != nil || token["secret"] != "leaver_scim_x" {
		t.Errorf("stdout %q: %v", &stdout, err)
	}
}

func TestPrint_SeparatesColumnsByTabsInPipe(t *testing.T) {
	fake(t, map[string]string{
		"GET /v1/tenants": `{"items":[{"name":"acme","profile":"entra",` +
			`"id":"4a3ec2c4-a334-4ead-a709-306d3154f984","createdAt":"2026-11-23T22:00:00Z"}]}`,
	}, 0)
	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{"tenant", "list"}, &stdout, &stderr)
	want := "acme\tentra\t4a3ec2c4-a334-4ead-a709-306d3154f984\t2026-11-23T22:00:00Z\tprivate\t-\t-\t\n"
	if stdout.String() != want {
		t.Errorf("%q, want %q", &stdout, want)
	}
}

func TestSCIMTest_ExitCodes(t *testing.T) {
	// This provider serves only a ServiceProviderConfig; it fails every other request.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ServiceProviderConfig" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = w.Write([]byte(`{"patch":{"supported":true}}`))
	}))
	t.Cleanup(server.Close)
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), []string{"scim", "test", server.URL, "--token", "x", "-o", "json"},
		&stdout, &stderr); got != exitError {
		t.Errorf("exit code %d: %s", got, &stderr)
	}
	var results []map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &results); err != nil || len(results) < 50 {
		t.Errorf("%d results on stdout: %v", len(results), err)
	}
	for _, r := range results {
		if r["set"] == "okta" && r["outcome"] != "failed" {
			t.Errorf("check %v: %v, want failed", r["name"], r["outcome"])
		}
	}
	t.Setenv("LEAVER_SCIM_TOKEN", "")
	for _, args := range [][]string{
		{"scim", "test", server.URL}, {"scim", "test", server.URL, "--token", "x", "--set", "ping"},
	} {
		if got := run(t.Context(), args, &stdout, &stderr); got != exitUsage {
			t.Errorf("%v: exit code %d, want %d", args, got, exitUsage)
		}
	}
	if got := run(t.Context(), []string{"scim", "test", "http://127.0.0.1:1", "--token", "x"},
		&stdout, &stderr); got != exitError {
		t.Errorf("an unreachable provider: exit code %d, want %d", got, exitError)
	}
}

func TestCredentialImport_ReportsInvalidLines(t *testing.T) {
	fake(t, map[string]string{
		"POST /v1/tenants/acme/import": `{"detail":"2 of 9 lines are invalid; nothing was registered","errors":[` +
			`{"line":3,"detail":"kind must be one of"},{"line":7,"detail":"already registered"}]}`,
	}, 422)
	var stdout, stderr bytes.Buffer
	run(t.Context(), []string{"credential", "import", "--tenant", "acme", "main_test.go"}, &stdout, &stderr)
	for _, want := range []string{"nothing was registered", "line 3: kind must be one of", "line 7: already registered"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("stderr lacks %q: %s", want, &stderr)
		}
	}
}

func TestPrincipalEnd_DryRunPrintsPlan(t *testing.T) {
	const id = "01a20ac5-5550-735f-82e8-afd06d99cd22"
	fake(t, map[string]string{
		"GET /v1/tenants/acme/principals": `{"items":[{"id":"` + id + `","type":"User","name":"ada@example.com"}]}`,
		"GET /v1/tenants/acme/principals/" + id + "/plan": `{"principal":{"name":"ada@example.com"},"items":[
		  {"kind":"scheduled_run","connector":"runs","reference":"nightly","verb":"cancel","verifiable":true},
		  {"kind":"service_account","connector":"crm","reference":"reports","verb":"rotate",` +
			`"goesOnForPrincipals":["` + id + `"],"verifiable":false}],
		  "orphanedAgents":[{"id":"` + id + `","name":"writer"}]}`,
	}, 0)
	var stdout, stderr bytes.Buffer
	if got := run(t.Context(), []string{"principal", "end", "ada@example.com", "--tenant", "acme", "--dry-run"},
		&stdout, &stderr); got != exitOK {
		t.Fatalf("exit code %d: %s", got, &stderr)
	}
	want := "1\tcancel\tscheduled_run\truns\tnightly\t-\tyes\n" +
		"2\trotate\tservice_account\tcrm\treports\t1 registered\tNO: there is no probe\n" + id + "\twriter\tsuspended\n"
	if stdout.String() != want {
		t.Errorf("%q, want %q", &stdout, want)
	}
}

func TestCascadeRerun_DryRunListsCredentialsAndRunsNothing(t *testing.T) {
	failed := strings.Replace(cascadeAnswer, "%", "failed", 1)
	fake(t, map[string]string{
		"GET /v1/tenants/acme/cascades":                                      `{"items":[` + failed + `]}`,
		"GET /v1/tenants/acme/cascades/4a3ec2c4-a334-4ead-a709-306d3154f984": failed,
		"GET /v1/tenants/acme/credentials": `{"items":[
		  {"id":"01a20ac5-5550-735f-82e8-afd06d99cd22","kind":"api_key","connector":"crm","reference":"key-1",` +
			`"state":"failed","reason":"crm answered 403"},
		  {"id":"01a20ac5-5550-735f-82e8-afd06d99cd23","kind":"api_key","connector":"crm","reference":"key-2","state":"verified"}]}`,
	}, 0)
	var stdout, stderr bytes.Buffer
	args := []string{
		"cascade",
		"rerun",
		"--tenant",
		"acme",
		"--failed",
		"--since",
		"24h",
		"--connector",
		"crm",
		"--dry-run",
	}
	if got := run(t.Context(), args, &stdout, &stderr); got != exitOK {
		t.Fatalf("exit code %d: %s", got, &stderr)
	}
	want := "4a3ec2c4-a334-4ead-a709-306d3154f984\t01a20ac5-5550-735f-82e8-afd06d99cd22\tapi_key\tcrm\tkey-1\tcrm answered 403\n"
	if stdout.String() != want {
		t.Errorf("%q, want %q", &stdout, want)
	}
}

// TestCommands_PrintRows has one command a row, with the rows that it prints.
func TestCommands_PrintRows(t *testing.T) {
	const ada = "01a20ac5-5550-735f-82e8-afd06d99cd22"
	fake(t, map[string]string{
		"GET /v1/tenants/acme/principals": `{"items":[{"id":"` + ada + `","type":"User","name":"ada"}]}`,
		"GET /v1/tenants/acme/principals/" + ada: `{"id":"` + ada + `","type":"User","name":"ada",` +
			`"entitlements":[{"name":"team:Engineering","since":"2026-11-23T22:00:00Z",` +
			`"sources":[{"rule":"engineers","group":"` + ada + `","groupName":"eng"}]}]}`,
		"GET /v1/tenants/acme/principals/" + ada + "/restoration": `{"entitlements":["team:Engineering"],` +
			`"runningCascades":[]}`,
		"POST /v1/tenants/acme/mapping/test": `{"entitlements":{"role:staff":[{"rule":"staff","when":"user.active"}]},` +
			`"denied":{"scope:deploy":[{"rule":"freeze","group":"` + ada + `","groupName":"frozen"}]},` +
			`"failed":[{"rule":"writers","reason":"the claim is not JSON"}]}`,
		"POST /v1/tenants/acme/mapping/diff": `{"baseVersion":3,"principals":1,"ends":2,` +
			`"gained":{"team:Sales":1},"lost":{"scope:deploy":1},` +
			`"changes":[{"principal":"` + ada + `","gained":["team:Sales"],"lost":["scope:deploy"]}]}`,
		"PUT /v1/tenants/acme/mapping": `{"version":4,"createdAt":"2026-11-23T22:00:00Z","actor":"op","reason":"x"}`,
		"GET /v1/tenants/acme/mapping/versions": `{"items":[{"version":4,"createdAt":"2026-11-23T22:00:00Z",` +
			`"actor":"op","reason":"x"}]}`,
		"POST /v1/tenants/acme/mapping/rollback": `{"version":5,"createdAt":"2026-11-23T22:00:00Z",` +
			`"actor":"op","reason":"back to version 3: x"}`,
		"GET /v1/tenants/acme/streams": `{"items":[{"id":"` + ada + `","method":"push","endpoint":"https://app","status":"enabled",` +
			`"waiting":7,"lastError":"app answered 500"}]}`,
	}, 0)
	for _, row := range []struct{ command, want string }{
		{
			"mapping test --user ada", "has\trole:staff\tstaff\tuser.active\nDENIED\tscope:deploy\tfreeze\tgroup frozen\n" +
				"FAILED\t-\twriters\tthe claim is not JSON",
		},
		{"mapping diff -f main_test.go", "+\tteam:Sales\t1 gain it\n-\tscope:deploy\t1 lose it\n\t" + ada + "\t+team:Sales -scope:deploy"},
		{"mapping apply -f main_test.go --reason x --base 3", "4\t2026-11-23T22:00:00Z\top\tx"},
		{"mapping history", "4\t2026-11-23T22:00:00Z\top\tx"},
		{"mapping rollback --to 3 --reason x", "5\t2026-11-23T22:00:00Z\top\tback to version 3: x"},
		{"principal show ada", "team:Engineering\tengineers\tgroup eng\t2026-11-23T22:00:00Z"},
		{"principal restore ada --dry-run", "entitlement\tteam:Engineering\trestored"},
		{"stream list", ada + "\tpush\thttps://app\tenabled\t7\t-\t0\t0\tapp answered 500"},
	} {
		var stdout, stderr bytes.Buffer
		args := append(strings.Fields(row.command), "--tenant", "acme")
		if code := run(t.Context(), args, &stdout, &stderr); code != exitOK ||
			strings.TrimSpace(stdout.String()) != strings.TrimSpace(row.want) {
			t.Errorf("%s: exit code %d, %q, want %q; stderr: %s", row.command, code, &stdout, row.want, &stderr)
		}
	}
}

func TestKeyset_WritesFileThatOnlyItsOwnerMayRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keyset.json")
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"keyset", "--out", file}, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit code %d: %s%s", code, stdout.String(), stderr.String())
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v (%v), want mode 0600", info, err)
	}
	if code := run(t.Context(), []string{"keyset", "rotate", file, "--add"}, &stdout, &stderr); code != exitOK {
		t.Errorf("rotate: exit code %d: %s", code, stderr.String())
	}
}

// TestClient_PresentsItsCertificate calls an API that requires a certificate, and whose own is of a private authority.
func TestClient_PresentsItsCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"items":[]}`))
	}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	pair := server.TLS.Certificates[0]
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for file, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("LEAVER_URL", server.URL)
	t.Setenv("LEAVER_TOKEN", "leaver_operator_test")
	for _, c := range []struct {
		ca, cert, key string
		want          int
	}{
		{"", "", "", exitError},
		{cert, "", "", exitError},
		{cert, cert, key, exitOK},
		{key, cert, key, exitUsage},
		{cert, cert, "", exitUsage},
	} {
		t.Setenv("LEAVER_CA_FILE", c.ca)
		t.Setenv("LEAVER_CERT_FILE", c.cert)
		t.Setenv("LEAVER_KEY_FILE", c.key)
		var out, errs bytes.Buffer
		if got := run(t.Context(), []string{"tenant", "list"}, &out, &errs); got != c.want {
			t.Errorf("%+v: exit code %d, %s", c, got, errs.String())
		}
	}
}
