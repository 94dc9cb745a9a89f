package devstack

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a child process that is signalled when stop is called and, on Linux,
// when its parent ends.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// startProcess starts cmd in a goroutine that keeps its thread until the child
// ends, because the kernel sends the death signal when the parent thread ends.
func startProcess(cmd *exec.Cmd, deathSignal syscall.Signal) (*process, error) {
	dieWithParent(cmd, deathSignal)
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // callers wait for done; the exit status is not used
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// stop signals the process and waits for its end. After the timeout it kills the process.
func (p *process) stop(signal syscall.Signal, timeout time.Duration) {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(signal)
	select {
	case <-p.done:
	case <-time.After(timeout):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// RunServer starts the command of a server beside the stack, which ends with this process. stop ends it and waits.
func RunServer(cmd *exec.Cmd) (stop func(), err error) {
	p, err := startProcess(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	return func() { p.stop(syscall.SIGTERM, serverStop) }, nil
}

// serverStop is how long a server has to end by itself.
const serverStop = 5 * time.Second
