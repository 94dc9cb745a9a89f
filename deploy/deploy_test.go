// Package deploy tests what it ships, without a container engine.
package deploy

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/worker"
)

func load(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"compose.yaml"},
		cli.WithWorkingDirectory(".."), cli.WithEnv([]string{"POSTGRES_PASSWORD=p", "LEAVER_DATABASE_PASSWORD=l"}), cli.WithInterpolation(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("compose.yaml does not load: %v", err)
	}
	return project
}

func TestComposeHasTheWholeInstallation(t *testing.T) {
	got := slices.Sorted(maps.Keys(load(t).Services))
	want := []string{"migrate", "postgresql", "serve", "temporal", "temporal-schema", "temporal-ui", "worker"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestComposeStartsInOrder(t *testing.T) {
	project := load(t)
	for service, after := range map[string]map[string]string{
		"temporal-schema": {"postgresql": types.ServiceConditionHealthy},
		"temporal":        {"temporal-schema": types.ServiceConditionCompletedSuccessfully},
		"migrate":         {"postgresql": types.ServiceConditionHealthy, "temporal": types.ServiceConditionStarted},
		"serve":           {"migrate": types.ServiceConditionCompletedSuccessfully},
		"worker":          {"migrate": types.ServiceConditionCompletedSuccessfully},
	} {
		for name, condition := range after {
			if got := project.Services[service].DependsOn[name].Condition; got != condition {
				t.Errorf("%s waits for %s: %q, want %q", service, name, got, condition)
			}
		}
	}
}

func TestComposeGivesTheOwnersRightsToMigrateAlone(t *testing.T) {
	for name, service := range load(t).Services {
		_, owner := service.Environment["LEAVER_DATABASE_MIGRATE_URL"]
		if owner != (name == "migrate") {
			t.Errorf("%s has the owner's URL: %t", name, owner)
		}
		if strings.Contains(service.Image, "auto-setup") {
			t.Errorf("%s uses the deprecated %s", name, service.Image)
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes %s on %q, want loopback", name, port.Published, port.HostIP)
			}
		}
	}
}

func TestTheExampleConfigurationIsValid(t *testing.T) {
	raw, err := os.ReadFile("leaver.example.yaml")
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

func TestTheImageIsStaticAndNobody(t *testing.T) {
	raw, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CGO_ENABLED=0", "FROM scratch", "USER 65532:65532"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("the Dockerfile lacks %q", want)
		}
	}
}
