package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leaverhq/leaver/internal/config"
	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// diagnosed returns the codes of an installation's problems.
func (i *installation) diagnosed() []string {
	var codes []string
	for _, p := range i.app.Diagnose(i.t.Context()) {
		if !slices.Contains(codes, p.Code) {
			codes = append(codes, p.Code)
		}
	}
	return codes
}

func TestDiagnose_HealthyInstallationHasNoProblem(t *testing.T) {
	p := newPlatform(t)
	i := install(t, withConnectors(p.connector()))
	stacktest.Eventually(t, 30*time.Second, "the workers to poll", func() bool { return len(i.diagnosed()) == 0 })
}

// TestDiagnose_RootCauseHidesItsConsequences breaks one part after the other.
func TestDiagnose_RootCauseHidesItsConsequences(t *testing.T) {
	p := newPlatform(t)
	for name, c := range map[string]struct {
		breaks setting
		act    func(*installation)
		want   []string
	}{
		"no worker": {nil, nil, []string{"workers"}},
		"a paused connector": {nil, func(i *installation) {
			i.must("POST", "/v1/connectors/idle/pause", i.operator, `{"reason":"x"}`)
		}, []string{"workers", "connector-paused"}},
		"no Temporal":  {func(c *config.Config) { c.Temporal.Address = "127.0.0.1:1" }, nil, []string{"temporal"}},
		"no namespace": {func(c *config.Config) { c.Temporal.Namespace = "none" }, nil, []string{"namespace"}},
		"a retention below the minimum": {func(c *config.Config) {
			c.Temporal.MinimumRetention = 10 * 365 * 24 * time.Hour
		}, nil, []string{"retention", "workers"}},
	} {
		t.Run(name, func(t *testing.T) {
			// Temporal remembers the workers of other tests, but none of this connector's queue.
			settings := []setting{withConnectors(strings.Replace(p.connector(), "name: platform", "name: idle", 1))}
			if c.breaks != nil {
				settings = append(settings, c.breaks)
			}
			i := installAPI(t, settings...)
			if c.act != nil {
				c.act(i)
			}
			if got := i.diagnosed(); !slices.Equal(got, c.want) {
				t.Errorf("the problems are %v, want %v", got, c.want)
			}
		})
	}
}

// TestDiagnose_DatabaseThatIsDownIsTheOnlyProblem also shows that each problem says what to do.
func TestDiagnose_DatabaseThatIsDownIsTheOnlyProblem(t *testing.T) {
	i := install(t)
	stacktest.Eventually(t, 30*time.Second, "the workers to poll", func() bool { return len(i.diagnosed()) == 0 })
	i.app.DB.Close()
	problems := i.app.Diagnose(t.Context())
	if len(problems) != 1 || problems[0].Code != "postgresql" || !strings.Contains(problems[0].String(), "database.url") {
		t.Errorf("the problems are %+v, want postgresql alone", problems)
	}
}
