package worker

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"

	"github.com/leaverhq/leaver/activities"
	"github.com/leaverhq/leaver/activities/connectors"
	"github.com/leaverhq/leaver/workflows"
)

// stopTimeout is longer than the longest attempt, so that a graceful stop interrupts none.
const stopTimeout = 75 * time.Second

// The concurrency limits of a process. They are low, so that a backlog waits in Temporal's
// queues, which prioritise leavers and are fair to tenants. In the process, the backlog would
// occupy the connections to PostgreSQL in the order of arrival.
const (
	// tasksPerCPU is the number of concurrent workflow tasks per CPU. A task mostly computes
	// and queries PostgreSQL.
	tasksPerCPU = 2
	// parallelActivities is the number of concurrent activities per connector, which mostly
	// wait for the downstream. A batch counts as one.
	parallelActivities = 16
)

// Workers contains one worker for the workflows, one for each queue of bulk work and one for
// each connector: a separate queue applies the connector's rate limit, and a slow connector
// delays no other (I10).
type Workers struct {
	workers []worker.Worker
}

// New returns workers, not started yet, with all workflows and activities registered.
func New(c client.Client, a *activities.Activities) *Workers {
	tasks := tasksPerCPU * runtime.GOMAXPROCS(0)
	main := worker.New(c, workflows.TaskQueue, worker.Options{
		WorkerStopTimeout:                       stopTimeout,
		MaxConcurrentWorkflowTaskPollers:        4,
		MaxConcurrentWorkflowTaskExecutionSize:  tasks,
		MaxConcurrentLocalActivityExecutionSize: tasks,
		Interceptors:                            []interceptor.WorkerInterceptor{&typeGuard{}},
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

// Start starts all workers, or none if one fails. It fails while Temporal is down.
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

// Stop stops polling for tasks, and waits up to [stopTimeout] for running tasks.
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
