package worker

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/workflows"
)

// stopTimeout is longer than the longest attempt, so that a graceful stop
// hands nothing back half done.
const stopTimeout = 75 * time.Second

// What a process has in hand at a time. Little, so that a backlog waits in
// Temporal's queues, where leavers go first and tenants take turns, and not here,
// where whoever came first has taken every connection to PostgreSQL.
const (
	// tasksPerCPU: between two steps a workflow task does little but compute and
	// ask PostgreSQL.
	tasksPerCPU = 2
	// parallelActivities are of one connector, and wait for it; a batch is one.
	parallelActivities = 16
)

// Workers are one worker for the workflows and one for each connector: a queue
// of its own keeps a connector's rate, and keeps its slowness to itself (I10).
type Workers struct {
	workers []worker.Worker
}

// New registers everything with workers that are not started yet.
func New(c client.Client, a *activities.Activities) *Workers {
	tasks := tasksPerCPU * runtime.GOMAXPROCS(0)
	main := worker.New(c, workflows.TaskQueue, worker.Options{
		WorkerStopTimeout:                       stopTimeout,
		MaxConcurrentWorkflowTaskPollers:        4,
		MaxConcurrentWorkflowTaskExecutionSize:  tasks,
		MaxConcurrentLocalActivityExecutionSize: tasks,
	})
	main.RegisterWorkflow(workflows.Leaver)
	main.RegisterWorkflow(workflows.Joiner)
	main.RegisterWorkflow(workflows.Mover)
	main.RegisterWorkflow(workflows.TeamSync)
	main.RegisterWorkflow(workflows.Reconcile)
	main.RegisterWorkflow(workflows.Drill)
	main.RegisterWorkflow(workflows.Transmit)
	main.RegisterActivity(a)
	w := &Workers{workers: []worker.Worker{main}}
	for queue, parallel := range map[string]int{workflows.SyncQueue: tasks, workflows.PushQueue: parallelActivities} {
		aside := worker.New(c, queue, worker.Options{
			WorkerStopTimeout: stopTimeout, DisableWorkflowWorker: true, MaxConcurrentActivityExecutionSize: parallel,
		})
		aside.RegisterActivity(a)
		w.workers = append(w.workers, aside)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Connectors)) {
		queue := worker.New(c, connectors.TaskQueue(name), worker.Options{
			WorkerStopTimeout:                  stopTimeout,
			DisableWorkflowWorker:              true,
			TaskQueueActivitiesPerSecond:       a.Connectors[name].Rate,
			MaxConcurrentActivityExecutionSize: parallelActivities,
			MaxConcurrentActivityTaskPollers:   8,
		})
		queue.RegisterActivity(a)
		w.workers = append(w.workers, queue)
	}
	return w
}

// Start starts all, or none. It fails while Temporal is down.
func (w *Workers) Start() error {
	for i, worker := range w.workers {
		if err := worker.Start(); err != nil {
			for _, started := range w.workers[:i] {
				started.Stop()
			}
			return fmt.Errorf("start the workers: %w", err)
		}
	}
	return nil
}

// Stop takes no new work, and waits for what is being done.
func (w *Workers) Stop() {
	done := make(chan struct{})
	for _, worker := range w.workers {
		go func() {
			worker.Stop()
			done <- struct{}{}
		}()
	}
	for range w.workers {
		<-done
	}
}
