package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.temporal.io/api/enums/v1"

	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/internal/database"
	"github.com/leaverhq/leaver/internal/health"
	"github.com/leaverhq/leaver/internal/registry"
	"github.com/leaverhq/leaver/internal/seal"
	"github.com/leaverhq/leaver/worker"
	"github.com/leaverhq/leaver/workflows"
)

// diagnosis looks for one kind of problem.
type diagnosis struct {
	code     string
	severity health.Severity
	// after are the codes of root causes: after one of them, the diagnosis would report only a consequence.
	after []string
	fix   string
	find  func(*snapshot, context.Context) []health.Problem // Text and Connector
}

// The codes that others depend on.
const (
	codePostgreSQL = "postgresql"
	codeSchema     = "schema"
	codeTemporal   = "temporal"
	codeNamespace  = "namespace"
	codeWorkers    = "workers"
)

// diagnoses lists what can be wrong, root causes first.
func diagnoses() []diagnosis {
	stored := []string{codePostgreSQL, codeSchema}
	running := []string{codePostgreSQL, codeSchema, codeTemporal, codeNamespace}
	worked := append(slices.Clone(running), codeWorkers)
	return []diagnosis{
		{codePostgreSQL, health.Critical, nil, "start PostgreSQL, or correct database.url", (*snapshot).postgresql},
		{codeSchema, health.Critical, []string{codePostgreSQL}, "", (*snapshot).schema},
		{"key-set", health.Critical, stored, "give every process the same key set", (*snapshot).keyset},
		{"key-set-mode", health.Warning, nil, "", (*snapshot).keysetMode},
		{"clock", health.Warning, stored, "synchronize the clocks of this host and of PostgreSQL's", (*snapshot).clock},
		{codeTemporal, health.Critical, nil, "start Temporal, or correct temporal.address", (*snapshot).temporal},
		{codeNamespace, health.Critical, []string{codeTemporal}, "", (*snapshot).badNamespace},
		{"retention", health.Warning, []string{codeTemporal, codeNamespace}, "", (*snapshot).retention},
		{
			codeWorkers, health.Critical,
			[]string{codeTemporal, codeNamespace},
			"start `leaver worker` with this configuration",
			(*snapshot).workers,
		},
		{"connector-paused", health.Warning, stored, "`leaver connector resume NAME --reason …`", (*snapshot).pauses},
		{health.ConnectorCheck, health.Critical, nil, "`leaver connector check NAME` repeats it", (*snapshot).connectors},
		{"health", health.Critical, stored, "check the log of PostgreSQL", (*snapshot).unread},
		{
			"unstarted", health.Critical, running, "check that `leaver serve` can reach Temporal",
			counted("%d events have no workflow yet", func(h health.Health) int64 { return h.Unstarted }),
		},
		{
			"not-begun", health.Critical, worked, "start `leaver worker`",
			counted("%d cascades were started but no worker runs them", func(h health.Health) int64 { return h.NotBegun }),
		},
		{
			"stalled", health.Warning, worked, "`leaver cascade list --tenant T --outcome running`",
			counted("a cascade has made no progress for %d s", func(h health.Health) int64 {
				return above(h.Stalled, maxStalled)
			}),
		},
		{
			"not-asked", health.Critical, stored, "`leaver cascade list --tenant T --outcome failed`",
			counted("%d failed cascades could not list the credentials at a connector",
				func(h health.Health) int64 { return h.NotAsked }),
		},
		{
			"survivors", health.Critical, stored, "`leaver cascade list --tenant T --outcome failed`",
			counted("%d credentials survived a cascade", func(h health.Health) int64 { return h.Survivors }),
		},
		{
			"held", health.Warning, stored, "`leaver hold list --tenant T`",
			counted("%d mass deactivations are held for approval", func(h health.Health) int64 { return h.Holds }),
		},
		{
			"unmanaged", health.Warning, stored, "`leaver credential unmanaged --tenant T`",
			counted("%d discovered credentials are unmanaged", func(h health.Health) int64 { return h.Unmanaged }),
		},
		{
			health.DrillProblem, health.Warning, worked, "read the workflow leaver-drill in Temporal's UI",
			scheduled(health.Drill, maxDrillAge),
		},
		{
			health.ReconcilerProblem, health.Warning, worked, "read the workflow leaver-reconcile in Temporal's UI",
			scheduled(health.Reconcile, maxReconcileAge),
		},
		{
			"unchained", health.Warning, stored, "check the log of `leaver serve` for the hash chains",
			counted("%d records are not in their hash chain", func(h health.Health) int64 {
				return above(float64(h.Unchained), maxUnchained)
			}),
		},
		{
			"unsigned", health.Warning, stored, "check the log of `leaver serve` for the hash chains",
			counted("evidence is not signed for %d s", func(h health.Health) int64 { return above(h.Unsigned, maxUnsigned) }),
		},
		{
			"unarchived", health.Warning, running, "check the log of `leaver serve` for the archive",
			counted("%d closed cascades are not archived", func(h health.Health) int64 { return h.Unarchived }),
		},
		{"audit-sink", health.Warning, stored, "check audit.address and the sink", (*snapshot).sink},
	}
}

// The limits, but that of clocks, are those of deploy/alerts.yaml.
const (
	maxClock        = 5 * time.Second
	maxStalled      = 1800 // seconds
	maxUnsigned     = 7200 // seconds
	maxUnchained    = 10_000
	maxDrillAge     = 36 * time.Hour
	maxReconcileAge = 3 * time.Hour
)

// snapshot is the state of an installation that several diagnoses read.
type snapshot struct {
	*App
	namespace    worker.Namespace
	namespaceErr error
	schemaErr    error
	health       health.Health
	healthErr    error
}

// Diagnose returns what is wrong with the installation, root causes first and without their consequences.
func (a *App) Diagnose(ctx context.Context) []health.Problem {
	p := &snapshot{App: a}
	p.askPostgreSQL(ctx)
	p.askTemporal(ctx)
	return p.problems(ctx)
}

func (p *snapshot) askPostgreSQL(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	p.schemaErr = p.DB.CheckSchema(ctx)
}

func (p *snapshot) askTemporal(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	p.namespace, p.namespaceErr = worker.CheckNamespace(ctx, p.Temporal, p.Config.Temporal)
}

// problems reads the health, and returns what the diagnoses find. Both stores must have been asked.
func (p *snapshot) problems(ctx context.Context) []health.Problem {
	if p.schemaErr == nil {
		p.health, p.healthErr = health.NewStore(p.DB).Read(ctx)
	}
	problems := []health.Problem{}
	found := make(map[string]bool)
	for _, d := range diagnoses() {
		if slices.ContainsFunc(d.after, func(code string) bool { return found[code] }) {
			continue
		}
		for _, problem := range d.find(p, ctx) {
			found[d.code] = true
			problem.Code, problem.Severity, problem.Fix = d.code, d.severity, d.fix
			problems = append(problems, problem)
		}
	}
	return problems
}

// texts returns the text of an error, unless it is nil.
func texts(err error) []health.Problem {
	if err == nil {
		return nil
	}
	return []health.Problem{{Text: err.Error()}}
}

func (p *snapshot) postgresql(context.Context) []health.Problem {
	if errors.Is(p.schemaErr, database.ErrMisconfigured) {
		return nil
	}
	return texts(p.schemaErr)
}

func (p *snapshot) schema(context.Context) []health.Problem { return texts(p.schemaErr) }

func (p *snapshot) keyset(ctx context.Context) []health.Problem {
	if err := database.CheckKeyset(ctx, p.DB, p.Sealer); errors.Is(err, seal.ErrUnknownKey) {
		return texts(err)
	}
	return nil // an error of PostgreSQL is another problem
}

func (p *snapshot) keysetMode(context.Context) []health.Problem {
	return texts(checkMode(p.Config.Seal.KeysetFile))
}

func (p *snapshot) clock(ctx context.Context) []health.Problem {
	now, err := database.Row(ctx, p.DB, uuid.Nil, pgx.RowTo[time.Time], `select clock_timestamp()`)
	if err != nil {
		return texts(err)
	}
	if off := time.Since(now).Abs(); off > maxClock {
		return []health.Problem{{
			Text: fmt.Sprintf("the clocks of this host and of PostgreSQL's differ by %s", off.Round(time.Second)),
		}}
	}
	return nil
}

func (p *snapshot) temporal(context.Context) []health.Problem {
	if errors.Is(p.namespaceErr, worker.ErrMisconfigured) {
		return nil
	}
	return texts(p.namespaceErr)
}

func (p *snapshot) badNamespace(context.Context) []health.Problem {
	return texts(errors.Join(p.namespaceErr, p.namespace.CheckArchive()))
}

func (p *snapshot) retention(context.Context) []health.Problem {
	if short := p.namespace.Short(p.Config.Temporal); short != "" {
		return []health.Problem{{Text: short}}
	}
	return nil
}

func (p *snapshot) workers(ctx context.Context) []health.Problem {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	var found []health.Problem
	for _, q := range p.queues() {
		if n, err := worker.Pollers(ctx, p.Temporal, q.name, q.kind); err == nil && n == 0 {
			found = append(found, health.Problem{Text: "no worker polls the task queue " + q.name})
		}
	}
	return found
}

func (p *snapshot) pauses(ctx context.Context) []health.Problem {
	pauses, err := registry.NewPauses(p.DB).All(ctx)
	found := texts(err)
	for _, name := range slices.Sorted(maps.Keys(pauses)) {
		found = append(found, health.Problem{Text: "the connector " + name + " is paused", Connector: name})
	}
	return found
}

// connectorsTimeout bounds the checks of the connectors, which follow those with a shorter limit.
const connectorsTimeout = 5 * time.Second

// checksTTL is how long the result of the connectors' checks is kept, each of which is a request to a downstream.
const checksTTL = 30 * time.Second

func (p *snapshot) connectors(ctx context.Context) []health.Problem {
	found, _ := p.checks.Get(ctx, struct{}{}, func(ctx context.Context) ([]health.Problem, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectorsTimeout)
		defer cancel()
		results := p.Connectors.Check(ctx)
		var found []health.Problem
		for _, name := range slices.Sorted(maps.Keys(results)) {
			if err := results[name]; err != nil {
				text := fmt.Sprintf("the connector %s failed its check: %v", name, err)
				found = append(found, health.Problem{Text: text, Connector: name})
			}
		}
		return found, nil
	})
	return found
}

// above returns a number if it is above a limit, and otherwise 0.
func above(n, limit float64) int64 {
	if n > limit {
		return int64(n)
	}
	return 0
}

// counted reports a number of the health if it is above 0.
func counted(format string, n func(health.Health) int64) func(*snapshot, context.Context) []health.Problem {
	return func(p *snapshot, _ context.Context) []health.Problem {
		if p.healthErr != nil {
			return nil // reported by unread
		}
		if n := n(p.health); n > 0 {
			return []health.Problem{{Text: fmt.Sprintf(format, n)}}
		}
		return nil
	}
}

// scheduled reports a kind of run that is scheduled, and that failed last or has not passed for too long.
func scheduled(kind health.Kind, age time.Duration) func(*snapshot, context.Context) []health.Problem {
	return func(p *snapshot, _ context.Context) []health.Problem {
		since, scheduled := p.health.Scheduled[kind]
		if passed := p.health.Passed[kind]; passed.After(since) {
			since = passed
		}
		if failed := p.health.Failed[kind]; scheduled && failed.After(since) {
			return []health.Problem{{Text: fmt.Sprintf("the %s failed at %s", kind, failed.UTC().Format(time.RFC3339))}}
		}
		if !scheduled || time.Since(since) < age {
			return nil
		}
		return []health.Problem{{Text: fmt.Sprintf("the %s has not passed since %s", kind, since.UTC().Format(time.RFC3339))}}
	}
}

func (p *snapshot) sink(ctx context.Context) []health.Problem {
	follower := p.Follower()
	if follower == nil {
		return nil
	}
	h, err := follower.Health(ctx)
	if err != nil || h.FailedAt == nil {
		return texts(err)
	}
	return []health.Problem{{Text: fmt.Sprintf("the audit sink does not take evidence since %s, and %d records wait: %s",
		h.FailedAt.UTC().Format(time.RFC3339), h.Pending, h.Failure)}}
}

func (p *snapshot) unread(context.Context) []health.Problem { return texts(p.healthErr) }

// queue is a task queue that some worker must poll.
type queue struct {
	name string
	kind enums.TaskQueueType
}

// queues returns the task queues of this configuration: leaver's own and each connector's.
func (a *App) queues() []queue {
	all := []queue{
		{workflows.TaskQueue, enums.TASK_QUEUE_TYPE_WORKFLOW},
		{workflows.SyncQueue, enums.TASK_QUEUE_TYPE_ACTIVITY},
		{workflows.PushQueue, enums.TASK_QUEUE_TYPE_ACTIVITY},
	}
	for _, name := range slices.Sorted(maps.Keys(a.Connectors)) {
		all = append(all, queue{connectors.TaskQueue(name), enums.TASK_QUEUE_TYPE_ACTIVITY})
	}
	return all
}

// verbose adds the problems, and the progress of cascades, to a response of /readyz.
func (p *snapshot) verbose(ctx context.Context, body map[string]any) {
	problems := p.problems(ctx)
	lines := make([]string, len(problems))
	for n, problem := range problems {
		lines[n] = problem.String()
	}
	body["problems"], body["diagnoses"] = lines, problems
	body["cascades"] = map[string]any{
		"running": p.health.Running, "oldestSeconds": int(p.health.Oldest), "stalledSeconds": int(p.health.Stalled),
	}
}
