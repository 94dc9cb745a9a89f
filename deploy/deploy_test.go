// Package deploy tests the deployment files without a container engine.
package deploy

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
)

func load(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"compose.yaml"}, cli.WithWorkingDirectory(".."),
		cli.WithEnv([]string{"POSTGRES_PASSWORD=p", "LEAVER_DATABASE_PASSWORD=l", "TEMPORAL_DATABASE_PASSWORD=t"}),
		cli.WithInterpolation(true), cli.WithProfiles([]string{"ui"}))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatalf("compose.yaml does not load: %v", err)
	}
	return project
}

func TestCompose_HasAllServices(t *testing.T) {
	got := slices.Sorted(maps.Keys(load(t).Services))
	want := []string{"migrate", "postgresql", "serve", "temporal", "temporal-schema", "temporal-ui", "worker"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCompose_StartsServicesInOrder(t *testing.T) {
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

func TestCompose_GivesOwnerURLOnlyToMigrate(t *testing.T) {
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

// TestCompose_RestrictsAccessToStores checks the access to Temporal, whose clients can read and
// stop workflows, and to the database, whose superuser can read and change everything.
func TestCompose_RestrictsAccessToStores(t *testing.T) {
	project := load(t)
	ui := project.Services["temporal-ui"]
	if !slices.Contains(ui.Profiles, "ui") || ui.Environment["TEMPORAL_AUTH_ENABLED"] == nil ||
		*ui.Environment["TEMPORAL_AUTH_ENABLED"] != "true" {
		t.Error("Temporal's UI starts without its profile, or does not authenticate its users")
	}
	if network := project.Networks["stores"]; !network.Internal {
		t.Error("the network stores is not internal")
	}
	for _, name := range []string{"postgresql", "temporal"} {
		if len(project.Services[name].Ports) > 0 {
			t.Errorf("%s is published", name)
		}
		networks := slices.Collect(maps.Keys(project.Services[name].Networks))
		if !slices.Equal(networks, []string{"stores"}) {
			t.Errorf("%s is on the networks %v, want only stores", name, networks)
		}
	}
	for _, name := range []string{"temporal", "temporal-schema"} {
		service := project.Services[name]
		text := fmt.Sprint(service.Environment, service.Command)
		if user := service.Environment["POSTGRES_USER"]; name == "temporal" && (user == nil || *user != "temporal") {
			t.Errorf("%s does not log in as the role temporal", name)
		}
		for variable, value := range service.Environment {
			if value != nil && *value == "p" {
				t.Errorf("%s is given the superuser's password in %s", name, variable)
			}
		}
		if strings.Contains(text, "-u postgres") {
			t.Errorf("%s logs in as the superuser", name)
		}
	}
}

func TestDockerfile_BuildsStaticBinaryForUnprivilegedUser(t *testing.T) {
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
