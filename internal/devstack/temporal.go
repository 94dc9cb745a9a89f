package devstack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
)

// temporal is a Temporal server with its UI, in a child process.
type temporal struct {
	address string
	ui      string
	log     string // path
	child   *process
}

// startTemporal starts the program `temporal` in the PATH, or else
// cmd/temporal-dev, which it builds once.
func startTemporal(ctx context.Context, dir string, o Options) (*temporal, error) {
	program, err := exec.LookPath("temporal")
	if err != nil {
		if program, err = buildTemporal(ctx, o.log); err != nil {
			return nil, err
		}
	}
	for attempt := 1; ; attempt++ {
		t, err := runTemporal(ctx, program, dir, o)
		if !errors.Is(err, errExited) || attempt == startAttempts {
			return t, err
		}
		o.log("%v; starting it again", err)
	}
}

// startAttempts is how often a server is started that exits by itself, for instance because another process
// took one of its ports.
const startAttempts = 3

// errExited is the error of a server that ended before it was healthy.
var errExited = errors.New("the Temporal server exited before it was healthy")

func runTemporal(ctx context.Context, program, dir string, o Options) (*temporal, error) {
	t := &temporal{log: filepath.Join(dir, "temporal.log")}
	ports, err := freePorts(o.TemporalPort, o.UIPort)
	if err != nil {
		return nil, err
	}
	t.address = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	t.ui = "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1]))
	args := []string{
		"server", "start-dev", "--ip", "127.0.0.1", "--port", strconv.Itoa(ports[0]), "--ui-port", strconv.Itoa(ports[1]),
		"--log-level", "error", "--namespace", o.Namespace,
		"--dynamic-config-value", "history.transferProcessorMaxPollRPS=200",
		"--dynamic-config-value", "system.forceSearchAttributesCacheRefreshOnRead=true",
	}
	if o.CodecEndpoint != "" {
		args = append(args, "--ui-codec-endpoint", o.CodecEndpoint)
	}
	if !o.Ephemeral {
		args = append(args, "--db-filename", filepath.Join(dir, "temporal.db"))
	}
	if o.Headless {
		args = append(args, "--headless")
	}
	logFile, err := os.OpenFile(t.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open Temporal's log: %w", err)
	}
	defer func() { _ = logFile.Close() }()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, logFile, logFile
	if t.child, err = startProcess(cmd, syscall.SIGTERM); err != nil {
		return nil, err
	}
	if err := t.wait(ctx, o.Namespace); err != nil {
		t.stop()
		return nil, fmt.Errorf("%w; %s", err, t.logEnd())
	}
	return t, nil
}

// wait returns nil once the server is healthy, and an error if it exits or takes longer than a minute.
func (t *temporal) wait(ctx context.Context, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := client.NewLazyClient(client.Options{HostPort: t.address, Namespace: namespace, Logger: quiet{}})
	if err != nil {
		return fmt.Errorf("configure a Temporal client: %w", err)
	}
	defer c.Close()
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		_, err := c.CheckHealth(attempt, &client.CheckHealthRequest{})
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-t.child.done:
			return errExited
		case <-ctx.Done():
			return fmt.Errorf("wait for the Temporal server: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// logEnd names the log and shows its end, because the log is deleted with the folder of an ephemeral stack.
func (t *temporal) logEnd() string {
	raw, err := os.ReadFile(t.log)
	if err != nil {
		return fmt.Sprintf("its log cannot be read: %v", err)
	}
	return fmt.Sprintf("%s ends with:\n%s", t.log, raw[max(0, len(raw)-maxLogShown):])
}

const maxLogShown = 2000 // bytes

func (t *temporal) stop() {
	if t.child != nil {
		t.child.stop(syscall.SIGTERM, 10*time.Second)
	}
}

// quiet discards the client's log records while the server starts.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

// freePorts returns the given ports, and free ones for those that are 0.
func freePorts(given ...int) ([]int, error) {
	ports := make([]int, len(given))
	for i, port := range given {
		if ports[i] = port; port != 0 {
			continue
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		// Closed only after all ports are found, so that they differ.
		defer func() { _ = listener.Close() }()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

const progressEvery = 15 * time.Second

// buildTemporal builds cmd/temporal-dev into the user's cache folder, under a name
// with the hash of its sources, and returns its path. Concurrent callers share one
// build.
func buildTemporal(ctx context.Context, log Logf) (string, error) {
	source, err := temporalSource()
	if err != nil {
		return "", err
	}
	sum, err := hashFolder(source)
	if err != nil {
		return "", fmt.Errorf("read the sources of temporal-dev: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join(os.TempDir(), "leaver-cache-"+strconv.Itoa(os.Getuid()))
	}
	cache = filepath.Join(cache, "leaver")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make the cache folder: %w", err)
	}
	program := filepath.Join(cache, "temporal-dev-"+sum)
	unlock, err := Lock(filepath.Join(cache, "build.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if isProgram(program) {
		return program, nil
	}
	log("building the Temporal server from %s (once; about 4 minutes on a cold cache; quicker: stop this, and put "+
		"Temporal's CLI `temporal` in the PATH, or set TEMPORAL_ADDRESS to a running server) …", source)
	began := time.Now()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(progressEvery):
				log("… still building the Temporal server, %s so far", time.Since(began).Round(time.Second))
			}
		}
	}()
	temporary := program + ".building"
	cmd := exec.CommandContext(ctx, "go", "build", "-o", temporary, ".")
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build temporal-dev: %w\n%s", err, out)
	}
	if err := os.Rename(temporary, program); err != nil {
		return "", fmt.Errorf("store temporal-dev: %w", err)
	}
	log("the Temporal server is built (%s)", time.Since(began).Round(time.Second))
	return program, nil
}

// temporalSource returns the path of cmd/temporal-dev in the source tree of the
// working directory or of this file.
func temporalSource() (string, error) {
	starts := make([]string, 0, 2)
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	if _, file, _, ok := runtime.Caller(0); ok {
		starts = append(starts, filepath.Dir(file))
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			source := filepath.Join(dir, "cmd", "temporal-dev")
			if _, err := os.Stat(filepath.Join(source, "go.mod")); err == nil {
				return source, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("no Temporal server found: run this in leaver's source tree, put Temporal's CLI (`temporal`) " +
		"in the PATH, or set TEMPORAL_ADDRESS to a running server")
}

func hashFolder(dir string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := d.Name()
		if (!strings.HasSuffix(name, ".go") && name != "go.mod" && name != "go.sum") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(h, "%s %d\n", name, len(raw))
		_, _ = h.Write(raw)
		return nil
	})
	return hex.EncodeToString(h.Sum(nil))[:12], err
}
