package app

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.temporal.io/api/enums/v1"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/worker"
	"github.com/leaverhq/leaver/workflows"
)

// queue is a task queue that some worker must poll.
type queue struct {
	name string
	kind enums.TaskQueueType
}

// queues returns the task queues of this configuration: the workflows' and each connector's.
func (a *App) queues() []queue {
	all := []queue{{workflows.TaskQueue, enums.TASK_QUEUE_TYPE_WORKFLOW}}
	for name := range a.Connectors {
		all = append(all, queue{connectors.TaskQueue(name), enums.TASK_QUEUE_TYPE_ACTIVITY})
	}
	slices.SortFunc(all[1:], func(a, b queue) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return all
}

// verbose adds the current problems, each with the next command, and the progress of cascades to a
// response of /readyz. It adds no tenant and no principal.
func (a *App) verbose(ctx context.Context, body map[string]any, namespace worker.Namespace, failed error) {
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if failed != nil {
		add("%v", failed)
	} else {
		if short := namespace.Short(a.Config.Temporal); short != "" {
			add("%s", short)
		}
		for _, q := range a.queues() {
			if n, err := worker.Pollers(ctx, a.Temporal, q.name, q.kind); err == nil && n == 0 {
				add("no worker polls the task queue %s: start `leaver worker` with this configuration", q.name)
			}
		}
	}
	if pauses, err := registry.NewPauses(a.DB).All(ctx); err == nil {
		for name := range pauses {
			add("the connector %s is paused: `leaver connector resume %s --reason …`", name, name)
		}
	}
	h, err := health.NewStore(a.DB).Read(ctx)
	if err != nil {
		add("failed to read the health of cascades: %v", err)
		body["problems"] = problems
		return
	}
	for _, p := range []struct {
		n    int64
		text string
	}{
		{h.Unstarted, "%d events have no workflow yet: check that `leaver serve` can reach Temporal"},
		{h.NotBegun, "%d cascades were started but no worker runs them: start `leaver worker`"},
		{h.NotAsked, "%d failed cascades could not list the credentials at a connector: " +
			"`leaver cascade list --tenant T --outcome failed`"},
		{h.Survivors, "%d credentials survived a cascade: `leaver cascade list --tenant T --outcome failed`"},
		{h.Holds, "%d mass deactivations are held for approval: `leaver hold list --tenant T`"},
		{h.Unmanaged, "%d discovered credentials are unmanaged: `leaver credential unmanaged --tenant T`"},
	} {
		if p.n > 0 {
			add(p.text, p.n)
		}
	}
	body["cascades"] = map[string]any{
		"running": h.Running, "oldestSeconds": int(h.Oldest), "stalledSeconds": int(h.Stalled),
	}
	if follower := a.Follower(); follower != nil {
		switch h, err := follower.Health(ctx); {
		case err != nil:
			add("%v", err)
		case h.FailedAt != nil:
			add("the audit sink does not take evidence since %s, and %d records wait: %s",
				h.FailedAt.UTC().Format(time.RFC3339), h.Pending, h.Failure)
		}
	}
	refused, _ := a.checks.Get(ctx, struct{}{}, func(ctx context.Context) ([]string, error) { return a.refusals(ctx), nil })
	problems = append(problems, refused...)
	if problems == nil {
		problems = []string{}
	}
	body["problems"] = problems
}

// connectorsTimeout bounds the checks of the connectors, which follow those with a shorter limit.
const connectorsTimeout = 5 * time.Second

// checksTTL is how long the result of the connectors' checks is kept, each of which is a request to a downstream.
const checksTTL = 30 * time.Second

// refusals returns the problems of connectors that their downstreams do not accept.
func (a *App) refusals(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectorsTimeout)
	defer cancel()
	results := a.Connectors.Check(ctx)
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(results)) {
		if err := results[name]; err != nil {
			problems = append(problems, fmt.Sprintf(
				"the connector %s failed its check: %v; `leaver connector check %s` repeats it", name, err, name))
		}
	}
	return problems
}
