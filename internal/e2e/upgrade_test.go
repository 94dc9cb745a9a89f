package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/leaverhq/leaver/internal/devstack/stacktest"
)

// earlier is a commit of this repository whose worker an installation may still run during an upgrade.
const earlier = "68b8e56"

// buildEarlier builds `leaver` of the commit [earlier].
func buildEarlier(t *testing.T) string {
	t.Helper()
	if err := exec.Command("git", "cat-file", "-e", earlier+"^{commit}").Run(); err != nil {
		t.Skipf("the commit %s is not here: %v; the test needs a clone with the history", earlier, err)
	}
	dir := t.TempDir()
	command := exec.Command("sh", "-c", `git -C "$(git rev-parse --show-toplevel)" archive `+earlier+` | tar -x -C "$0" && cd "$0" && go build -o leaver ./cmd/leaver`, dir)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("build the commit %s: %v: %s", earlier, err, out)
	}
	return filepath.Join(dir, "leaver")
}

// TestUpgrade_NewBuildContinuesRunningCascades upgrades workers in the middle of cascades, as a rolling deployment does:
// the schema first, then a new worker beside the earlier one, which then stops.
func TestUpgrade_NewBuildContinuesRunningCascades(t *testing.T) {
	long(t)
	program := buildEarlier(t)
	p := newPlatform(t)
	i := installAPI(t, withConnectors(p.connector()))
	var down atomic.Bool
	down.Store(true)
	p.interceptWith(func(w http.ResponseWriter, kind, _ string) bool {
		refused := kind == "credential.revoke" && down.Load()
		if refused {
			http.Error(w, "maintenance", http.StatusServiceUnavailable)
		}
		return refused
	})
	var people []string
	leave := func(from, to int) {
		for n := from; n < to; n++ {
			person := i.createUser(fmt.Sprintf("user-%d@example.com", n))
			i.hold(p, person, i.createAgent(fmt.Sprintf("agent-%d", n), person), fmt.Sprintf("key-%d", n))
			i.deactivate(person)
			people = append(people, person)
		}
	}
	old := i.processOf(program, []string{"worker"}, p.connector())
	leave(0, 10)
	tried := func(n int) bool { return p.called("credential.revoke", fmt.Sprintf("key-%d", n)) > 0 }
	for n := range 10 {
		stacktest.Eventually(t, time.Minute, "an attempt of the earlier worker", func() bool { return tried(n) })
	}
	i.work() // both builds take tasks of the same cascades
	leave(10, 20)
	for n := 10; n < 20; n++ {
		stacktest.Eventually(t, time.Minute, "an attempt of either worker", func() bool { return tried(n) })
	}
	if err := old.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if state, err := old.Process.Wait(); err != nil || !state.Success() {
		t.Errorf("the earlier worker ended with %v, %v", state, err)
	}
	down.Store(false)
	for _, person := range people {
		if c := i.closed(person); c.Outcome != "completed" {
			t.Errorf("the cascade of %s is %s, want completed", person, c.Outcome)
		}
	}
	for line := range strings.Lines(i.logs.String()) {
		for _, fault := range []string{"nondeterministic", "Workflow panic", "Failed to process workflow task"} {
			if strings.Contains(line, fault) && strings.Contains(line, i.tenant.ID.String()) { // not another test's
				t.Errorf("the logs have %s", line)
			}
		}
	}
}
