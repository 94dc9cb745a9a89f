package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// TestServer_WorkflowSurvivesRestart runs the server twice on one file, and checks that the
// second run has the first run's workflow with the caller's name in its events.
func TestServer_WorkflowSurvivesRestart(t *testing.T) {
	port, err := freePort("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	o := options{
		IP: "127.0.0.1", Port: port, Headless: true, DBFilename: filepath.Join(t.TempDir(), "temporal.db"),
		LogLevel: "never", LogFormat: "text", Namespaces: []string{"leaver"},
		SearchAttributes: []string{"LeaverTenant=Keyword"},
	}
	var id string
	for round := range 2 {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- run(ctx, o) }()
		c := dial(t, o)
		if round == 0 {
			started, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: "q"}, wait)
			if err != nil {
				t.Fatal(err)
			}
			id = started.GetID()
		} else {
			finish(t, c, id)
		}
		c.Close()
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

func wait(ctx workflow.Context) error {
	workflow.GetSignalChannel(ctx, "go").Receive(ctx, nil)
	return nil
}

func dial(t *testing.T, o options) client.Client {
	t.Helper()
	for until := time.Now().Add(30 * time.Second); ; {
		c, err := client.Dial(client.Options{
			HostPort: net.JoinHostPort(o.IP, strconv.Itoa(o.Port)), Namespace: "leaver", Identity: "ada",
		})
		if err == nil {
			_, err = c.CheckHealth(t.Context(), &client.CheckHealthRequest{})
		}
		if err == nil {
			return c
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func finish(t *testing.T, c client.Client, id string) {
	t.Helper()
	w := worker.New(c, "q", worker.Options{})
	w.RegisterWorkflow(wait)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if err := c.SignalWorkflow(t.Context(), id, "", "go", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.GetWorkflow(t.Context(), id, "").Get(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	events := c.GetWorkflowHistory(t.Context(), id, "", false, 1)
	event, err := events.Next()
	if err != nil {
		t.Fatal(err)
	}
	if name := event.GetPrincipal().GetName(); name != "ada" {
		t.Errorf("the first event's principal is %q, want ada", name)
	}
}

// TestMain runs the command itself in the processes that tests start with runAsCommand set.
func TestMain(m *testing.M) {
	if os.Getenv(runAsCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const runAsCommand = "TEMPORAL_DEV_TEST_COMMAND"

func TestServer_IsNotHealthyIfItsWebUICannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port, err := freePort("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	_, uiPort, _ := net.SplitHostPort(taken.Addr().String())
	cmd := exec.Command(os.Args[0], "server", "start-dev", "--port", strconv.Itoa(port), "--ui-port", uiPort)
	cmd.Env = append(os.Environ(), runAsCommand+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	c, err := client.NewLazyClient(client.Options{HostPort: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for {
		select {
		case err := <-exited:
			if err == nil {
				t.Error("the command succeeded, want the error of the Web UI")
			}
			return
		default:
		}
		attempt, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := c.CheckHealth(attempt, &client.CheckHealthRequest{}); err == nil {
			t.Error("the server was healthy before its Web UI")
		}
		cancel()
	}
}

func TestOptions_RejectInvalidFlags(t *testing.T) {
	for name, o := range map[string]options{
		"a search attribute without a type": {SearchAttributes: []string{"x"}},
		"an unknown type":                   {SearchAttributes: []string{"x=Teapot"}},
	} {
		if _, err := o.searchAttributes(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := (options{DynamicConfig: []string{"x=notjson"}}).dynamicConfig(); err == nil {
		t.Error("a dynamic config value that is not JSON was accepted")
	}
}
