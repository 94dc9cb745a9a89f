package devstack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the system account that PostgreSQL runs as: its programs refuse to run as root.
type account struct {
	uid, gid uint32
	dropped  bool // the process is root and runs PostgreSQL as the account
}

func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return account{}, fmt.Errorf("account %s: %w", name, err)
		}
		return account{uid: uint32(uid), gid: uint32(gid), dropped: true}, nil
	}
	return account{}, errors.New("PostgreSQL refuses to run as root, and neither account postgres nor nobody exists: " +
		"run as another user")
}

// apply makes cmd run as the account.
func (a account) apply(cmd *exec.Cmd) {
	if a.dropped {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.gid}}
	}
}

// mkdir creates a folder with mode 0700 that the account owns.
func (a account) mkdir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	if a.dropped {
		return os.Chown(path, int(a.uid), int(a.gid))
	}
	return nil
}

// canReach reports whether the account may traverse all parents of path. A path
// below root's home, which has mode 0700, is not reachable.
func (a account) canReach(path string) bool {
	if !a.dropped {
		return true
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil {
			stat, ok := info.Sys().(*syscall.Stat_t)
			mode := info.Mode().Perm()
			passes := ok && (mode&0o001 != 0 || (stat.Uid == a.uid && mode&0o100 != 0) || (stat.Gid == a.gid && mode&0o010 != 0))
			if ok && !passes {
				return false
			}
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}
