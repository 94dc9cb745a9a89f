package devstack

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel signal the child when its parent ends. The child
// gets its own process group, so that Ctrl-C reaches only the parent, which stops
// the stack in order.
func dieWithParent(cmd *exec.Cmd, signal syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = signal
	cmd.SysProcAttr.Setpgid = true
}
