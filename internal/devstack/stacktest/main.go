// Package stacktest provides tests with one PostgreSQL cluster and one Temporal
// server for a whole `go test ./...`, a database for each test, and a namespace
// for each package.
//
// Each package's TestMain calls [Main]. The first test binary starts itself a
// second time as the stack's supervisor. Every binary holds a lease while it
// runs, and the supervisor stops when no lease has been held for 20 s.
package stacktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leaverhq/leaver/internal/devstack"
)

const (
	superviseVariable = "LEAVER_STACKTEST_SUPERVISE"
	// idle is how long the stack runs after the last lease is released. It is longer
	// than go test takes between two packages.
	idle = 20 * time.Second
	// startTimeout bounds the start of the stack, including the first build of the
	// Temporal server.
	startTimeout = 20 * time.Minute
)

// address is the file by which the supervisor publishes the stack, or the error of its start.
type address struct {
	DatabaseURL     string `json:"databaseUrl"`
	TemporalAddress string `json:"temporalAddress"`
	Error           string `json:"error,omitempty"`
}

var shared address

// Main runs the tests of a package that needs the stack.
func Main(m *testing.M) {
	if dir := os.Getenv(superviseVariable); dir != "" {
		supervise(dir)
		return
	}
	release, err := join()
	if err != nil {
		fmt.Fprintln(os.Stderr, "stacktest:", err)
		os.Exit(1)
	}
	code := m.Run()
	release()
	os.Exit(code)
}

// join takes a lease of the stack, and starts the stack if it is not running.
func join() (release func(), err error) {
	dir := filepath.Join(os.TempDir(), "leaver-test-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("create the stack's folder: %w", err)
	}
	unlock, err := devstack.Lock(filepath.Join(dir, "start.lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	release, err = devstack.Lease(filepath.Join(dir, "lease"))
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "stack.json")
	if shared, err = read(file); err == nil && answers(shared) {
		return release, nil
	}
	_ = os.Remove(file)
	if err := startSupervisor(dir); err != nil {
		release()
		return nil, err
	}
	for until := time.Now().Add(startTimeout); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		if shared, err = read(file); err != nil {
			continue
		}
		if shared.Error != "" {
			release()
			return nil, errors.New(shared.Error)
		}
		return release, nil
	}
	release()
	return nil, fmt.Errorf("the stack did not start; see %s", filepath.Join(dir, "supervisor.log"))
}

func read(file string) (address, error) {
	var a address
	raw, err := os.ReadFile(file)
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(raw, &a)
}

func answers(a address) bool {
	if a.Error != "" {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, a.DatabaseURL)
	if err != nil {
		return false
	}
	_ = conn.Close(ctx)
	tcp, err := net.DialTimeout("tcp", a.TemporalAddress, time.Second)
	if err != nil {
		return false
	}
	_ = tcp.Close()
	return true
}

func startSupervisor(dir string) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the test binary: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "supervisor.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the supervisor's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), superviseVariable+"="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	// In its own session it outlives this binary, and go test does not wait for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	return cmd.Process.Release()
}

// supervise runs the stack until no lease has been held for idle.
func supervise(dir string) {
	logf := func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	// This process does not inherit the lease: exec closes the open file that has the lock.
	data := filepath.Join(dir, "data-"+strconv.Itoa(os.Getpid()))
	if err := os.MkdirAll(data, 0o711); err != nil {
		publish(dir, address{Error: err.Error()})
		return
	}
	defer func() { _ = os.RemoveAll(data) }()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	stack, err := devstack.Start(ctx, devstack.Options{
		Data: data, Ephemeral: true, Headless: true, Namespace: "default-tests", Log: logf,
	})
	cancel()
	if err != nil {
		publish(dir, address{Error: err.Error()})
		return
	}
	defer stack.Stop()
	publish(dir, address{DatabaseURL: stack.DatabaseURL, TemporalAddress: stack.TemporalAddress})
	lease := filepath.Join(dir, "lease")
	for since := time.Now(); ; time.Sleep(time.Second) {
		free, ok := devstack.TryLock(lease)
		if !ok {
			since = time.Now()
			continue
		}
		done := time.Since(since) > idle
		if done {
			// The exclusive lock is held, so that no binary takes a lease; the next one starts a new stack.
			_ = os.Remove(filepath.Join(dir, "stack.json"))
		}
		free()
		if done {
			return
		}
	}
}

// publish writes the address file atomically.
func publish(dir string, a address) {
	raw, _ := json.Marshal(a) // strings always encode
	temporary := filepath.Join(dir, "stack.json.new")
	if os.WriteFile(temporary, raw, 0o600) == nil {
		_ = os.Rename(temporary, filepath.Join(dir, "stack.json"))
	}
}
