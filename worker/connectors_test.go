package worker_test

import (
	"os"
	"os/exec"
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
	cfg, err := config.Parse("leaver.example.yaml", raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	registry, err := worker.Connectors(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer registry.Close()
	if len(registry) != 6 {
		t.Errorf("%d connectors, want 6", len(registry))
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
