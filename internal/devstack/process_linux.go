package devstack

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel signal the child when its parent is killed. The
// child gets a process group of its own, so that Ctrl-C reaches only us, and
// the stack comes down in order.
func dieWithParent(cmd *exec.Cmd, signal syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = signal
	cmd.SysProcAttr.Setpgid = true
}
