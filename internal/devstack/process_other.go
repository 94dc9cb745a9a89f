//go:build unix && !linux

package devstack

import (
	"os/exec"
	"syscall"
)

// dieWithParent: this system has no death signal; a stack whose parent was
// killed is found, and used again, by the next one.
func dieWithParent(cmd *exec.Cmd, _ syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}
