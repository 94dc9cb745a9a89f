package worker_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/worker"
)

func TestConnectors_AcceptsTheExampleConfiguration(t *testing.T) {
	raw, err := os.ReadFile("../deploy/leaver.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("WORKSPACE_CLIENT_SECRET", "x")
	t.Setenv("CRM_DATABASE_URL", "postgres://leaver@crm.example.com/crm")
	t.Setenv("PLATFORM_WEBHOOK_SECRET", "whsec_bGVhdmVy")
	t.Setenv("BAO_TOKEN", "x")
	t.Setenv("DIRECTORY_PASSWORD", "x")
	t.Setenv("ORDERS_ADMIN_DSN", "leaver:x@tcp(orders.example.com:3306)/?tls=true")
	t.Setenv("CACHE_ADMIN_URL", "rediss://leaver:x@cache.example.com:6379")
	cfg, err := config.Parse("leaver.example.yaml", raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	registry, err := worker.Connectors(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	if len(registry) != len(cfg.Connectors) || len(registry) == 0 {
		t.Errorf("%d connectors of %d in the example", len(registry), len(cfg.Connectors))
	}
	if overlaps := registry.Overlaps(); len(overlaps) > 0 {
		t.Errorf("the example has the warnings %q", overlaps)
	}
}

// TestConnectors_WarnOfTwoForOneDownstream: an account that is registered at both would be ended at one while the other
// has a holder.
func TestConnectors_WarnOfTwoForOneDownstream(t *testing.T) {
	t.Setenv("ONE_URL", "rediss://leaver:x@cache.example.com:6379")
	t.Setenv("OTHER_URL", "rediss://leaver:x@CACHE.example.com:6379/1")
	for tenants, want := range map[string]int{"acme": 1, "other": 0} {
		cfg, err := config.Parse("leaver.yaml", []byte(fmt.Sprintf(`connectors:
  - {name: cache, type: redis, tenants: [acme], url: env:ONE_URL}
  - {name: again, type: redis, tenants: [%s], url: env:OTHER_URL}
`, tenants)), nil)
		if err != nil {
			t.Fatal(err)
		}
		registry, err := worker.Connectors(cfg)
		if err != nil {
			t.Fatal(err)
		}
		overlaps := registry.Overlaps()
		registry.Close()
		if len(overlaps) != want {
			t.Errorf("%s: the warnings are %q, want %d", tenants, overlaps, want)
		}
	}
}

// TestConnectors_AreDocumented checks that each type that leaver.yaml may name has a block in the example
// and a row in the documents.
func TestConnectors_AreDocumented(t *testing.T) {
	source, err := os.ReadFile("connectors.go")
	if err != nil {
		t.Fatal(err)
	}
	types := regexp.MustCompile(`case "(\w+)":`).FindAllStringSubmatch(string(source), -1)
	if len(types) < 5 {
		t.Fatalf("found the types %v only", types)
	}
	for path, row := range map[string]string{
		"../deploy/leaver.example.yaml": "type: %s", "../docs/CONNECTORS.md": "| `%s`", "../docs/THREAT-MODEL.md": "| `%s`",
		"../README.md": "`%s`",
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range types {
			if want := fmt.Sprintf(row, name[1]); !strings.Contains(string(text), want) {
				t.Errorf("%s has no %q", path, want)
			}
		}
	}
}

// TestProduct_LinksNoTestOnlyModule checks that the shipped binary contains no module that
// only tests and the development stack need.
func TestProduct_LinksNoTestOnlyModule(t *testing.T) {
	out, err := exec.CommandContext(
		t.Context(), "go", "list", "-deps", "github.com/leaverhq/leaver/cmd/leaver",
	).Output()
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range strings.Lines(string(out)) {
		for _, module := range []string{
			"github.com/zitadel/oidc", "github.com/elimity-com/scim", "github.com/compose-spec", "pgregory.net/rapid",
			"github.com/leaverhq/leaver/internal/devstack",
		} {
			if strings.HasPrefix(pkg, module) {
				t.Errorf("the product links %s", strings.TrimSpace(pkg))
			}
		}
	}
}
