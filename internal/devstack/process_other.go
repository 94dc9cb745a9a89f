//go:build unix && !linux

package devstack

import (
	"os/exec"
	"syscall"
)

// dieWithParent gives the child its own process group. This system has no death
// signal; the next stack reuses a PostgreSQL whose parent was killed.
func dieWithParent(cmd *exec.Cmd, _ syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}
