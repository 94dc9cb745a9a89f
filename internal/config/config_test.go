package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/worker"
)

func TestParse_ErrorsNameTheLine(t *testing.T) {
	for name, c := range map[string]struct{ yaml, want string }{
		"an unknown type": {
			"connectors:\n  - name: a\n    type: teapot\n    tenants: [x]\n",
			`leaver.yaml:2: connector a: type must be one of oauth2, postgres`,
		},
		"a missing variable": {
			"connectors:\n\n  - name: a\n    type: postgres\n    tenants: [x]\n    url: env:NOT_SET_ANYWHERE\n",
			"leaver.yaml:3: connector a: url: the variable NOT_SET_ANYWHERE is not set",
		},
		"a literal secret": {
			"connectors:\n  - {name: a, type: postgres, tenants: [x], url: 'postgres://u:p4ss@h/d'}\n",
			"by reference, env:NAME or file:PATH",
		},
		"an unknown setting": {
			"connectors:\n  - name: a\n    type: webhook\n    tenants: [x]\n    urll: x\n",
			`leaver.yaml:5: unknown setting "urll"`,
		},
		"definitions that are a list": {"connector_definitions: [a]\n", "leaver.yaml:1: connector_definitions must be the path"},
		"an unknown section":          {"databse: {}\n", `leaver.yaml:1: unknown setting "databse"`},
		"no tenants":                  {"connectors:\n  - {name: a, type: webhook}\n", "leaver.yaml:2: connector a names no tenants"},
		"a name twice":                {"connectors:\n  - &c {name: a, type: webhook, tenants: [x]}\n  - *c\n", "given twice"},
		"a bad name":                  {"connectors:\n  - {name: 'A b', type: webhook, tenants: [x]}\n", "leaver.yaml:2"},
		"leaver's own namespace": {
			"temporal: {address: 't:7233', namespace: leaver}\nconnectors:\n" +
				"  - {name: runs, type: temporal, tenants: [x], address: 't:7233', namespace: leaver}\n",
			"leaver.yaml:3: connector runs: namespace leaver at t:7233 is the one that leaver itself runs in",
		},
		"a pattern that matches others": {
			"connectors:\n" +
				"  - {name: a, type: temporal, tenants: [x], address: 't:7233', namespace: n, references: ['svc-{tenant}-*']}\n",
			"leaver.yaml:2: connector a: references",
		},
		"an unknown setting of a section": {
			"serve:\n  lisen: ':9000'\n",
			`leaver.yaml:2: unknown setting "lisen"; known are listen,`,
		},
		"a duration without a unit": {
			"policy:\n  progress_interval: 1s\n  deadline: 24\n",
			`leaver.yaml:3: deadline must be a duration with a unit, such as 90s, 15m or 24h, got "24"`,
		},
		"a negative duration": {"policy: {deadline: -1h}\n", `leaver.yaml:1: deadline must be a duration`},
		"a wrong type": {
			"serve: {requests_per_second: many}\n",
			`leaver.yaml:1: requests_per_second must be a whole number, got "many"`,
		},
		"a setting twice": {"serve:\n  listen: a\n  listen: b\n", `leaver.yaml:3: listen is given twice`},
		"a section twice": {
			"serve: {listen: a}\nserve: {listen: b}\n",
			`leaver.yaml:2: serve is given twice`,
		},
		"a section that is a list": {"serve: []\n", `leaver.yaml:1: must be a YAML mapping`},
		"no YAML":                  {"a: [\n", "leaver.yaml: yaml: line"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := config.Parse("leaver.yaml", []byte(c.yaml), nil)
			if err == nil {
				_, err = worker.Connectors(cfg)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v; want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "p4ss") {
				t.Error("the error quotes the secret")
			}
		})
	}
}

func TestVariables_OverrideTheFile(t *testing.T) {
	file := "database: {url: from-file}\nserve: {public_url: 'https://leaver.example.com/'}\n"
	cfg, err := config.Parse("leaver.yaml", []byte(file), []string{
		"LEAVER_DATABASE_URL=from-env", "LEAVER_POLICY_DEADLINE=90m", "LEAVER_CODEC_ALLOWED_ORIGINS=http://a,http://b",
		"PATH=/bin",
	})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Database.URL != "from-env" || cfg.Database.MigrateURL != "from-env" {
		t.Errorf("database %+v, want from-env", cfg.Database)
	}
	if cfg.Policy.Deadline.Minutes() != 90 || len(cfg.Codec.AllowedOrigins) != 2 ||
		cfg.Serve.PublicURL != "https://leaver.example.com" {
		t.Errorf("%+v", cfg)
	}
}

func TestVariables_ErrorsNameTheVariable(t *testing.T) {
	const duration = `must be a duration with a unit, such as 90s, 15m or 24h, got "24"`
	for variable, want := range map[string]string{
		"LEAVER_POLICY_DEADLINE=24": `the variable LEAVER_POLICY_DEADLINE ` + duration,
		"LEAVER_SERVE_REQUESTS_PER_SECOND=many": `the variable LEAVER_SERVE_REQUESTS_PER_SECOND ` +
			`must be a whole number, got "many"`,
		"LEAVER_SIGNALS_PRIVATE_RECEIVERS=probably": `the variable LEAVER_SIGNALS_PRIVATE_RECEIVERS ` +
			`must be true or false, got "probably"`,
	} {
		if _, err := config.Parse("leaver.yaml", nil, []string{variable}); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", variable, err, want)
		}
	}
}

func TestVariables_UnknownNameWarns(t *testing.T) {
	file := "connectors: [{name: a, type: webhook, tenants: [x], secret: 'env:LEAVER_OWN_SECRET'}]\n"
	cfg, err := config.Parse("leaver.yaml", []byte(file), []string{
		"LEAVER_POLICY_DEDLINE=1h", "LEAVER_SERVE_LISTEN=:1", "LEAVER_TOKEN=x", "LEAVER_URL=x",
		"LEAVER_OWN_SECRET=x", "LEAVER_DEV_X=1", "PATH=/bin",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"unknown variable LEAVER_POLICY_DEDLINE; did you mean LEAVER_POLICY_DEADLINE?"}
	if diff := cmp.Diff(want, cfg.Warnings); diff != "" {
		t.Error(diff)
	}
}

func TestDefaults_ListenOnLoopback(t *testing.T) {
	cfg, err := config.Parse("leaver.yaml", []byte("self_test: {reconcile_every: 0}\nmetrics: {listen: ':9000'}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Serve.Listen != "127.0.0.1:8080" || cfg.SelfTest.ReconcileEvery != 0 || cfg.Metrics.WorkerListen != ":9000" {
		t.Errorf("%+v", cfg)
	}
}

func TestSettings_AcceptStrings(t *testing.T) {
	file := "serve: {requests_per_second: \"7\"}\ncodec: {allowed_origins: 'http://a,http://b'}\n" +
		"temporal: {minimum_retention: 30d}\n"
	environ := []string{"LEAVER_SIGNALS_PRIVATE_RECEIVERS=", "LEAVER_POLICY_DEADLINE="}
	cfg, err := config.Parse("leaver.yaml", []byte(file), environ)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Serve.RequestsPerSecond != 7 || len(cfg.Codec.AllowedOrigins) != 2 ||
		cfg.Temporal.MinimumRetention != 30*24*time.Hour {
		t.Errorf("%+v", cfg)
	}
}
